"""What the commands of lab/ do once their options are read. They import these files late: `--help` needs no PyTorch.

confirm_tuning.py    the tuner's choice beside the best of all settings
measure_fidelity.py  our answers beside those of the libraries
measure_start.py     from the command to the first right answer
run_chaos.py         the rows of the reliability page
run_soak.py          hours of load, or malformed requests
sweep_zoo.py         every model on every backend
"""
