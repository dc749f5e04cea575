"""A recipe becomes a network with its weights, labels and preprocessing.

recipes.py           the recipe: one strict yaml file a model
checkpoints.py       the network and all that a checkpoint says of it
sources/             one file a library that models come from
file_kinds.py        what a file is, by its first bytes
other_files.py       what it is that no source takes, and what to do about it
shards.py            a model in several files
weight_files.py      what is in a file of weights: `look_into`
onnx_weights.py      the weights beside an ONNX file
file_facts.py        what a TorchScript or ONNX file says of its images
weights.py           state dicts from files into networks
traces.py            what was done to a network before it was saved, by names
misfits.py           why a state dict does not fit, and what to say in the recipe
heads.py             a changed last layer: its sizes from the weights
label_files.py       labels from lists, lines, data.yaml and id2label
random_weights.py    random weights that still tell pictures apart
normalisations.py    the usual means and stds
example_pixels.py    photographs as model pixels, to trace and warm up with
handlers_by_task.py  the handler of each task, and its entry file
"""
