"""Which backend and precision serves a model best on this machine: by evidence.

build.py           the flow: the reference, every candidate within the budget, the timing, the choice
trials.py          one candidate exported and verified in a process of its own
trial_process.py   what runs in that process
timing.py          what passed, timed in turn, each loaded in a process of its own
timing_process.py  what runs in it
candidates.py      what became of each: the rows of the table, of candidates.json and of the archive's proof
table.py           the table as people read it
packing.py         a verified export and `handlers/` become a .mar
sbom.py            the bill of materials of an archive
"""
