"""The best workers, threads, batch size and batch delay for a model on this machine.

space         what is tried
deployment    how a model is served, now and from now on
trial_server  a TorchServe of its own with such settings
probe         the highest rate of requests at which it keeps a latency
search        which settings are tried, and what they gave
tuner         all of it, and the decision
"""
