"""The zoo sweep: which models run on which backend in which precision, found out by building and verifying them all.

zoo.py            which models
plan.py           which of their backends and precisions are left to do, and in which order
execution.py      the plan, model by model: each row is a trial of the build, bounded in time and memory
trial_process.py  what runs in its process: the build's trial, then the time of an image
coverage.py       lab/results/compatibility.json, one row a line
"""
