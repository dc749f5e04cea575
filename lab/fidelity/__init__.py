"""Fidelity: our preprocessing and answers beside those of the library that a model comes from, picture by picture.

pictures.py           real photographs at many sizes, encoded as a client sends them
subjects.py           one model: our archive of it, and what its library does with a picture
cases.py              the models, from three tables named CASES
torchvision_cases.py
timm_cases.py
huggingface_cases.py
comparison.py         how pixels and answers differ
results.py            lab/results/fidelity.json, one model a line
rendering.py          docs/evidence/fidelity.md, from it
"""
