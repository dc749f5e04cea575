"""The best workers, threads, batch size and batch delay for a model on this machine.

space         what is tried
trial_server  a TorchServe of its own with such settings
probe         the highest rate of requests at which it keeps a latency
search        which settings are tried, and what they gave
"""
