"""The objects of a TorchScript file: their attributes and tensors. None of its code runs, and nothing is imported."""

import ast
import io
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vision_serving.errors import ConfigError

Shapes = Mapping[str, tuple[int, ...]]
TENSORS = {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_qtensor"}
DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
UNSTATED = "a value of no stated type"
DAMAGED = (RuntimeError, pickle.UnpicklingError, EOFError, AttributeError, ValueError, IndexError, TypeError, KeyError)


class ScriptObject:
    """An object of a class of the file: its attributes, and nothing of its code."""

    name = ""

    def __init__(self, *_: Any) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}

    def find(self, *names: str) -> Any:
        """Return what lies at names of attributes, one in the other; None for nothing."""
        found: Any = self
        for name in names:
            inner = found.attributes if isinstance(found, ScriptObject) else found
            found = inner.get(name) if isinstance(inner, dict) else None
        return found

    def parts(self) -> Iterator["ScriptObject"]:
        """Yield the objects in it, at any depth."""
        for inner in self.attributes.values():
            if isinstance(inner, ScriptObject):
                yield inner
                yield from inner.parts()


@dataclass(frozen=True)
class StoredTensor:
    """storage: its type, and its name in the file."""

    shape: tuple[int, ...]
    storage: tuple[str, str]
    offset: int
    stride: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """A TorchScript file: its tensors by name, what its `forward` gives, as its source writes it, and its objects."""

    shapes: Shapes
    answer: str
    root: ScriptObject


def read_program(path: Path) -> Program:
    """Raises ConfigError for a damaged file."""
    reader = open_script(path)
    try:
        root = read_objects(reader)
        shapes = {name: stored.shape for name, stored in name_tensors(root)}
        return Program(shapes, _find_answer(reader, root.name), root)
    except DAMAGED as error:
        raise ConfigError(f"{path}: a damaged TorchScript file ({type(error).__name__})") from error


def _find_answer(reader: Any, class_name: str) -> str:
    """Return the type that `forward` of the root class is written to give."""
    module, _, name = class_name.rpartition(".")
    source = ast.parse(reader.get_record(f"code/{module.replace('.', '/')}.py").decode())
    definitions = (node for node in source.body if isinstance(node, ast.ClassDef) and node.name == name)
    return next(map(_answer_of, definitions), UNSTATED)


def _answer_of(definition: ast.ClassDef) -> str:
    forwards = (part for part in definition.body if isinstance(part, ast.FunctionDef) and part.name == "forward")
    returns = next((part.returns for part in forwards), None)
    return UNSTATED if returns is None else ast.unparse(returns)


def open_script(path: Path) -> Any:
    return torch._C.PyTorchFileReader(str(path))


def read_objects(reader: Any) -> ScriptObject:
    """Return the root. Raises what DAMAGED lists."""
    root: ScriptObject = _Objects(io.BytesIO(reader.get_record("data.pkl"))).load()
    return root


def name_tensors(value: ScriptObject, prefix: str = "") -> Iterator[tuple[str, StoredTensor]]:
    """Yield the tensors of an object by their names in its state dict."""
    for name, inner in value.attributes.items():
        if isinstance(inner, StoredTensor):
            yield prefix + name, inner
        elif isinstance(inner, ScriptObject):
            yield from name_tensors(inner, f"{prefix}{name}.")


def read_tensors(path: Path) -> Mapping[str, Tensor]:
    """Return the state dict of a TorchScript file. Raises ConfigError for a damaged file, and for quantised tensors."""
    try:
        reader = open_script(path)
        return {name: _read_tensor(reader, stored) for name, stored in name_tensors(read_objects(reader))}
    except DAMAGED as error:
        raise ConfigError(f"{path}: its tensors cannot be read ({type(error).__name__}: {error})") from error


def _read_tensor(reader: Any, stored: StoredTensor) -> Tensor:
    kind, record = stored.storage
    values = torch.frombuffer(bytearray(reader.get_record(f"data/{record}")), dtype=DTYPES[kind])
    return values.as_strided(stored.shape, stored.stride, stored.offset).clone()


def _rebuild(storage: Any, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> StoredTensor:
    return StoredTensor(tuple(shape), storage, offset, tuple(stride))


class _Objects(pickle.Unpickler):
    """Unpickles the objects of a TorchScript file as plain ones."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return type(name, (ScriptObject,), {"name": f"{module}.{name}"})
        if module == "torch._utils" and name in TENSORS:
            return _rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch.jit._pickle" and name.startswith(("build_", "restore_")):
            return _unwrap
        if module == "torch" and name.endswith("Storage"):
            return name
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a TorchScript file")

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        _, kind, record, *_rest = pid
        return kind, record


def _unwrap(*values: Any) -> Any:
    """Return a list or a dict without the type that the file states for it."""
    if not values:
        return []
    return values[0] if isinstance(values[0], dict) else list(values[0])
