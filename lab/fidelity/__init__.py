"""Fidelity: our preprocessing and answers beside those of the library that a model comes from, picture by picture.

pictures.py           real photographs at many sizes, encoded as a client sends them
compared_models.py    one model: our archive of it, and what its library does with a picture
torchvision_cases.py  those of torchvision
timm_cases.py         those of timm
huggingface_cases.py  those of transformers
comparison.py         how pixels and answers differ
results.py            lab/results/fidelity.json, one model a line
"""
