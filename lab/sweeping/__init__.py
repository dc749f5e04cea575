"""The zoo sweep: which models run on which backend in which precision, found out by building and verifying them all.

zoo.py        which models
plan.py       which of their backends and precisions are left to do, and in which order
worker.py     one model on some backends, in a process of its own
processes.py  its process, watched: a crash, a hang or a lack of memory costs one row
execution.py  the plan, model by model
coverage.py   lab/results/compatibility.json, one row a line
"""
