"""Whether the traffic of a served model is still what its archive was verified with.

reference.py    what the archive says of its verification, and which archive that is
samples.py      what workers kept of their predictions
comparing.py    how far two distributions are apart, and whether that can be chance
tables.py       the comparison as tables
histograms.py   the comparison as a picture
"""
