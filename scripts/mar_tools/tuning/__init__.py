"""The best workers, threads, batch size and batch delay for a model on this machine.

command.py       what scripts/tune_model.py does
space.py         what is tried
deployment.py    how a model is served, now and from now on
trial_server.py  a TorchServe of its own with such settings
probe.py         the highest rate of requests at which it keeps a latency
search.py        which settings are tried, and what they gave
tuner.py         all of it, and the decision
"""
