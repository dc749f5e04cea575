"""A .mar archive: read, check, sign and describe it. Nothing here needs PyTorch.

archive.py            an archive, well-formed and intact, or the reason why not
zip_reading.py        the zip form, read so strictly that no two readers can disagree
zip_form.py           the one zip form that we write
checks.py             what must hold of an archive of ours
pickles.py            files in it that could run code when loaded
digests.py            SHA-256 over an artifact and over a configuration
signing.py            keys and signatures
fetching.py           archives from elsewhere into a store, when a trusted key has signed all of them
packages.py           the packages that serving it needs, and which are missing here
policy.py             which archives a server may load
contents.py           what is in an archive, and what differs between two
model_cards.py        the model card, as people read it
golden_prediction.py  the picture whose answer is known, and how far an answer may be off
box_matching.py       which boxes of one answer have a partner in another
"""
