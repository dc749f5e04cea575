"""A network becomes an artifact in an export folder.

export.py            the export: the artifact, and all that a worker and the next steps need
export_folders.py    an export folder: its name, its files, what is read from them
exporters/           one file a backend
calibration.py       the pictures that int8 ranges are measured on, and the layers that stay in float
signal_to_noise.py   how far outputs are from those of the float model
torch_programs.py    `torch.export` of a graph
onnx_export.py       a graph as an ONNX file
onnx_files.py        what a user's ONNX file holds
onnx_models.py       a user's ONNX model with our stages around it
"""
