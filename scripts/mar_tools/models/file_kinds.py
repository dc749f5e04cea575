"""What a file of a model is, by its content: names and suffixes say little. Needs no PyTorch, so it costs no second."""

import zipfile
from pathlib import Path
from typing import Literal

from vision_serving.errors import ConfigError

FileKind = Literal["safetensors", "torch.save", "torchscript", "torch.export", "mar", "onnx"]
WEIGHTS: tuple[FileKind, ...] = ("safetensors", "torch.save")  # that hold weights by name; the others are programs

HEAD = 512
OLD_TORCH_SAVE = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # begins the form before 1.6, after two bytes
# What people hold in place of a model, by its first bytes.
OTHERS: dict[bytes, str] = {
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself; run `git lfs pull`",
    b"<": "a page of a website (HTML or XML), not the file; download it again",
    b"\x89HDF": "an HDF5 file, as Keras writes it; no source takes it, so export the model to ONNX",
    b"GGUF": "a GGUF file, which holds language models",
    b"\x1f\x8b": "compressed by gzip; unpack it, and name the file inside",
    b"BZh": "compressed by bzip2; unpack it, and name the file inside",
    b"\x93NUMPY": "a NumPy array, which has no names of weights",
    b"PAR1": "a Parquet file",
    b"{": "a JSON file; the index of a model in several files is not read, so save it as one file",
}
IN_ZIP = {  # a file that tells what wrote the zip -> what that is
    "model.weights.h5": "a Keras model; no source takes it, so export the model to ONNX",
    "AndroidManifest.xml": "an Android package",
}


def find_kind(path: Path) -> FileKind:
    """Raises ConfigError that says what else it is."""
    if path.is_dir():
        shards = "the shards of a distributed checkpoint (torch.distributed.checkpoint.format_utils joins them)"
        what = shards if any(path.glob("*.distcp")) else "a folder"
        raise ConfigError(f"{path}: expected a file, got {what}")
    if not path.is_file():
        raise ConfigError(f"{path}: no such weights file")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    kind = "" if head[:2] != b"PK" else _kind_of_zip(path)
    if head[2 : 2 + len(OLD_TORCH_SAVE)] == OLD_TORCH_SAVE:
        kind = "torch.save"
    elif head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        kind = "safetensors"
    elif head[:1] == b"\x08" and (path.suffix == ".onnx" or b"pytorch" in head or b"onnx" in head):
        kind = "onnx"
    if kind:
        return kind  # type: ignore[return-value]
    raise ConfigError(f"{path}: {_describe_other(head)}")


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ConfigError(f"{path}: damaged, or only a part of the file (BadZipFile); copy it again") from error
    inner = {name.partition("/")[2] for name in names} | set(names)
    if "MAR-INF/MANIFEST.json" in names:
        return "mar"
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        return "torchscript"
    if "archive_format" in inner or "serialized_exported_program.json" in inner:
        return "torch.export"
    if "data.pkl" in inner:
        return "torch.save"
    what = next((text for name, text in IN_ZIP.items() if name in inner), None)
    if all(name.endswith(".npy") for name in names):
        what = "a file of NumPy arrays (.npz); save it as safetensors (safetensors.numpy.save_file)"
    raise ConfigError(f"{path}: {what or f'a zip that holds no model, but {names[:3]}; unpack it'}")


def _describe_other(head: bytes) -> str:
    """Return what a file is that holds no weights, as the end of a sentence."""
    known = next((text for start, text in OTHERS.items() if head.lstrip()[: len(start)] == start), None)
    if known is not None:
        return known
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it, and name the file inside"
    if head[4:8] in (b"TFL3", b"TFL4"):
        return "a TensorFlow Lite model; no source takes it, so export the model to ONNX"
    if head[:1] == b"\x80" and len(head) > 2:
        return f"a Python pickle of protocol {head[1]} that torch.save did not write; torch.save(model.state_dict())"
    if not head:
        return "an empty file"
    if not any(head):
        return "damaged, or not a weights file: it begins with zeros, as a download that was cut short"
    return "damaged, or not a weights file (expected what torch.save or safetensors writes)"
