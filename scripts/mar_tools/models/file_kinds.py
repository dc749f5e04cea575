"""What a file of a model is, by its content: names and suffixes say little. Needs no PyTorch, so it costs no second."""

import tarfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Literal

import orjson

from mar_tools.models.other_files import describe_folder, describe_other, describe_zip
from mar_tools.models.shards import list_shards
from vision_serving.errors import ConfigError

FileKind = Literal["safetensors", "torch.save", "torchscript", "torch.export", "mar", "onnx"]
WEIGHTS: tuple[FileKind, ...] = ("safetensors", "torch.save")  # that hold weights by name; the others are programs

HEAD = 512
LARGEST_HEADER = 100_000_000  # bytes, that safetensors itself allows
GZIP = b"\x1f\x8b"
MANIFEST = PurePosixPath("MAR-INF/MANIFEST.json")  # which torch-model-archiver writes, in a tar under the model's name
OLD_TORCH_SAVE = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # begins the form before 1.6, after two bytes


def find_kind(path: Path) -> FileKind:
    """Return what a file is; of the index of several, what they are. Raises ConfigError that says what else it is."""
    check_is_file(path)
    shards = list_shards(path)
    if shards and path not in shards:
        return find_kind(shards[0])
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
        kind = _kind_of_head(path, head)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise ConfigError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if kind is None:
        raise ConfigError(f"{path}: {describe_other(path, head)}")
    return kind


def check_is_file(path: Path) -> None:
    """Raises ConfigError for a folder, a link that leads to nothing, and a path at which nothing is."""
    if path.is_dir():
        raise ConfigError(f"{path}: expected a file, got {describe_folder(path) or 'a folder'}")
    if path.is_symlink() and not path.exists():
        raise ConfigError(
            f"{path}: a link to {path.readlink()}, where nothing is; bring that file, or copy this one with "
            "what it leads to (cp -L)"
        )
    if not path.is_file():
        raise ConfigError(f"{path}: no such weights file")


def _kind_of_head(path: Path, head: bytes) -> FileKind | None:
    if head[:2] == b"PK":
        return _kind_of_zip(path)
    if head[2 : 2 + len(OLD_TORCH_SAVE)] == OLD_TORCH_SAVE:
        return "torch.save"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "safetensors"
    by_onnx = path.suffix == ".onnx" or b"pytorch" in head or b"onnx" in head
    if head[:1] == b"\x08" and by_onnx and b"coremltools" not in head:  # whose files begin alike
        return "onnx"
    if head[:2] == GZIP and _is_packed_by_archiver(path):
        return "mar"
    return None


def list_tensor_names(path: Path) -> list[str]:
    """Return the names of the tensors of a safetensors file, by its header; none of another file."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = file.read(size) if size <= LARGEST_HEADER else b""
    try:
        names = orjson.loads(header)
    except orjson.JSONDecodeError:
        return []
    return list(names) if isinstance(names, dict) else []


def _is_packed_by_archiver(path: Path) -> bool:
    """Return whether a file that gzip compressed is what `torch-model-archiver --archive-format tgz` writes."""
    try:
        with tarfile.open(path) as archive:
            return any(PurePosixPath(entry.name).parts[-2:] == MANIFEST.parts for entry in archive)
    except tarfile.ReadError:
        return False  # no tar archive


def _kind_of_zip(path: Path) -> FileKind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ConfigError(f"{path}: damaged, or only a part of the file (BadZipFile); copy it again") from error
    inner = {name.partition("/")[2] for name in names} | set(names)
    if str(MANIFEST) in names:
        return "mar"
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        return "torchscript"
    if "archive_format" in inner or "serialized_exported_program.json" in inner:
        return "torch.export"
    if "data.pkl" in inner:
        return "torch.save"
    raise ConfigError(f"{path}: {describe_zip(names)}")
