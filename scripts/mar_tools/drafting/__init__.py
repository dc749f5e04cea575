"""A model's file becomes a recipe: what the file says, what had to be assumed, and what nobody could know.

No code of the file runs. An ONNX file, which only computes, is asked for its answers on some photographs.

drafts.py          a recipe that is being written, with the reason of each line
forms.py           which form a file has, and who reads it
onnx_drafts.py     an ONNX file: metadata of its exporter, inputs, outputs
ultralytics_drafts.py  the metadata of Ultralytics
output_forms.py    how a network's answers are to be read, by their names, shapes and values
score_forms.py     what its numbers of classes are: scores, logits, with a background
row_forms.py       what the numbers of a row are
box_forms.py       which four numbers a box has
rearrangements.py  boxes, scores and classes in other dimensions: a `decode` is written
first_steps.py     which pixels a file takes that scales them itself
distribution_heads.py  heads that need a `decode`, which is written
conventions.py     how programs of known families prepare pictures
pixel_trials.py    which scaling of pixels gives the most confident answers
torchscript_drafts.py  a TorchScript file: its tensors and its program, read and not run
script_objects.py  its tensors and attributes, without its code
scripted_detectors.py  a detector of torchvision that was scripted
state_drafts.py    a state dict: what its names alone tell
weight_drafts.py   weights: which architecture they fit
architectures.py   the models of torchvision and timm, by the names and shapes of their tensors
library_drafts.py  a name of torchvision or timm, a folder of Hugging Face
stock_files.py     an archive as torch-model-archiver packs it, in each form
stock_archives.py  an archive of TorchServe's own handlers
"""
