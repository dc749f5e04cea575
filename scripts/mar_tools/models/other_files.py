"""What people hold in place of a model that a source takes: what it is, and what to do about it. Needs no PyTorch."""

import re
from collections.abc import Collection
from pathlib import Path

TO_ONNX = "no source takes it; ask its author for the PyTorch checkpoint that it was made from, or for an ONNX file"
TENSORRT = f"a TensorRT engine, which runs on one kind of GPU alone; {TO_ONNX}"
CORE_ML = f"a Core ML model of Apple; {TO_ONNX}"
OPENVINO = f"an OpenVINO model; {TO_ONNX}"
FLAX = f"weights of Flax (JAX); {TO_ONNX}"
EXECUTORCH = f"a program of ExecuTorch; {TO_ONNX}"
TENSORFLOW = "a TensorFlow model; no source takes it, so export it to ONNX (python -m tf2onnx.convert)"
LITE = "a TensorFlow Lite model; no source takes it, so export the model to ONNX"
KERAS = "a Keras model; no source takes it, so export the model to ONNX"
PADDLE = "a Paddle model; no source takes it, so export it to ONNX (paddle2onnx)"

# How a file begins, behind spaces -> what it is.
STARTS: dict[bytes, str] = {
    rb"version https://git-lfs": "a pointer of Git LFS, not the file itself; run `git lfs pull`",
    rb"<.*<net\s": f"the .xml of {OPENVINO}",
    rb"<.*<opencv_storage>": "an XML file of OpenCV, such as a cascade; no source takes it",
    rb"<(.*<)?(!doctype\s+html|html|head|body)\b": "a page of a website (HTML), not the file; download it again",
    rb"<": "an XML file, as a server also answers when it refuses a download; read it, and download the model again",
    rb"\x89HDF": "an HDF5 file, as Keras writes it; no source takes it, so export the model to ONNX",
    rb"GGUF": "a GGUF file, which holds language models",
    rb"\x1f\x8b": "compressed by gzip; unpack it, and name the file inside",
    rb"BZh": "compressed by bzip2; unpack it, and name the file inside",
    rb"\xfd7zXZ": "compressed by xz; unpack it, and name the file inside",
    rb"(7z\xbc\xaf|Rar!)": "a 7z or RAR archive; unpack it, and name the file inside",
    rb"\x93NUMPY": "a NumPy array, which has no names of weights",
    rb"PAR1": "a Parquet file",
    rb"ftrt|...\x00\{\"": TENSORRT,  # Ultralytics writes a JSON document before it, behind its length
    rb"....(TFL3|TFL4)": LITE,
    rb"....ET\d\d": EXECUTORCH,
    rb"\x08.*coremltools": CORE_ML,
    rb"7767517\s": f"the layers of an ncnn model; {TO_ONNX}",
    rb"\[net\]|\[network\]": f"the layers of a Darknet model; {TO_ONNX}",
    rb"\{": "a JSON file; name the file of weights, or the folder that both lie in",
    # A map of Flax: how many entries it has, and the name of the first.
    rb"(?:[\x81-\x8f]|\xde..)(?:[\xa1-\xbf]|\xd9.)[A-Za-z_][\w/]*[\x80-\x8f\xc7-\xc9\xde]": FLAX,
}
# By the name alone, where the content tells nothing.
SUFFIXES: dict[str, str] = {
    **dict.fromkeys((".engine", ".plan", ".trt"), TENSORRT),
    **dict.fromkeys((".mlmodel", ".mlpackage", ".mlmodelc"), CORE_ML),
    **dict.fromkeys((".pb", ".pbtxt", ".meta", ".index", ".data-00000-of-00001"), TENSORFLOW),
    **dict.fromkeys((".pdmodel", ".pdiparams", ".pdparams"), PADDLE),
    **dict.fromkeys((".caffemodel", ".prototxt"), f"a Caffe model; {TO_ONNX}"),
    **dict.fromkeys((".weights", ".cfg"), f"a Darknet model; {TO_ONNX}"),
    ".msgpack": FLAX,
    ".tflite": LITE,
    ".mnn": f"an MNN model; {TO_ONNX}",
    ".dlc": f"a Qualcomm model; {TO_ONNX}",
    ".hef": f"a Hailo model; {TO_ONNX}",
    ".blob": f"an OpenVINO model for one kind of device; {TO_ONNX}",
    ".pte": EXECUTORCH,
    ".data": "the weights of an ONNX file; name the .onnx file beside it",
}
IN_ZIP = {  # how a file in a zip is called that tells what wrote it -> what that is
    r"(^|/)model\.weights\.h5$": KERAS,
    r"(^|/)saved_model\.pb$": f"a zip of {TENSORFLOW}",
    r"\.mlpackage/|com\.apple\.CoreML": f"a zip of {CORE_ML}",
    r"^AndroidManifest\.xml$": "an Android package",
}
IN_FOLDER = {  # a file in a folder that tells what wrote it -> what that is
    "*.distcp": "the shards of a distributed checkpoint (torch.distributed.checkpoint.format_utils joins them)",
    "saved_model.pb": TENSORFLOW,
    "Data/com.apple.CoreML": CORE_ML,
    "coremldata.bin": CORE_ML,
    "*.pdiparams": PADDLE,
    "*.xml": f"the folder of {OPENVINO}",
    "_METADATA": f"a checkpoint of Orbax (JAX); {TO_ONNX}",
    "_CHECKPOINT_METADATA": f"a checkpoint of Orbax (JAX); {TO_ONNX}",
    "flax_model.msgpack": f"a folder with {FLAX}",
    "tf_model.h5": "a folder with weights of Keras; no source takes them, so export the model to ONNX",
    "*.param": f"the folder of an ncnn model; {TO_ONNX}",
}


def describe_other(path: Path, head: bytes) -> str:
    """Return what a file is that is no model of a known form, as the end of a sentence. head: how it begins."""
    if not head:
        return "an empty file"
    if not any(head):
        return "damaged, or not a weights file: it begins with zeros, as a download that was cut short"
    if (
        path.suffix.lower() == ".bin" and path.with_suffix(".xml").is_file()
    ):  # bare numbers, which may begin as any file
        return f"by the .xml beside it the weights of {OPENVINO}"
    known = next((text for start, text in STARTS.items() if _begins(start, head)), None)
    if known is not None:
        return known
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it, and name the file inside"
    if head[:1] == b"\x80" and len(head) > 2:
        return f"a Python pickle of protocol {head[1]} that torch.save did not write; torch.save(model.state_dict())"
    named = SUFFIXES.get(path.suffix.lower())
    if named is not None:
        return f"by its name {named}"
    return "damaged, or not a weights file (expected what torch.save or safetensors writes)"


def _begins(start: bytes, head: bytes) -> bool:
    return re.match(rb"\s*(?:" + start + rb")", head, re.DOTALL | re.IGNORECASE) is not None


def describe_zip(names: Collection[str]) -> str:
    """Return what a zip is that holds files of these names, and no model of a known form."""
    if not names:
        return "an empty zip archive; the program that wrote it was stopped, so copy it again"
    known = next((text for name, text in IN_ZIP.items() if any(re.search(name, each) for each in names)), None)
    if known is not None:
        return known
    if all(name.endswith(".npy") for name in names):
        return "a file of NumPy arrays (.npz); save it as safetensors (safetensors.numpy.save_file)"
    return f"a zip archive of {sorted(names)[:3]}; unpack it, and name the model's file inside"


def describe_folder(folder: Path) -> str | None:
    """Return what a folder is that no source takes, None where nothing in it tells."""
    known = next((text for name, text in IN_FOLDER.items() if any(folder.glob(name))), None)
    return known or SUFFIXES.get(folder.suffix.lower())
