"""What is copied into folders, as it is. The Python files import each other by their names there, and NumPy.

preprocess.py         a picture as the model's pixels
postprocess.py        outputs as classes, boxes or a vector
predict.py            both around the model: files of pictures in, JSON out
run_onnxruntime.py    runtime.py of a folder for ONNX Runtime
run_executorch.py     runtime.py of a folder for ExecuTorch
run_litert.py         runtime.py of a folder for LiteRT
vision.mjs            the same as preprocess.py and postprocess.py in JavaScript
index.html            the page that runs the model in a browser
readme/               the templates of README.md, one a format; parts.md begins them all
"""
