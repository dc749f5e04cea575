"""The best workers, threads, batch size and batch delay for a model on this machine.

rule.py          what suits a machine before anything is tried
space.py         what is tried
deployment.py    how a model is served, now and from now on
gpu_memory.py    what workers take of a GPU, so that nothing is tried that does not fit
probe.py         the highest rate of requests at which it keeps a latency
search.py        which settings are tried, and what they gave
tuner.py         all of it, and the decision
"""
