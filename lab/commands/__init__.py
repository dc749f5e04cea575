"""What the commands of lab/ do once their options are read.

Each file has the name of its command. The commands import them late, so that `--help` needs no PyTorch.
"""
