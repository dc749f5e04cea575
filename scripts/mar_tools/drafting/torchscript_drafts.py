"""A TorchScript file -> a recipe: its tensors and the form of its answer are read, its program does not run."""

import ast
import io
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import torch

from mar_tools.drafting.drafts import IMAGENET, Draft, Hints, Noted, assume, choose_labels, name_of
from vision_serving.errors import ConfigError

Shapes = Mapping[str, tuple[int, ...]]
METADATA = "extra/config.txt"  # of Ultralytics
UNTOLD = "ImageNet's, as nothing in the file tells"
UNSTATED = "a value of no stated type"
TENSORS = {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_qtensor"}
GRAY = {"channels": 1, "mean": [0], "std": [1]}
CLASSIFIER = {"resize": {"mode": "shortest_edge", "size": 256}, "crop": [224, 224], **IMAGENET}


@dataclass(frozen=True)
class Program:
    """A TorchScript file: its tensors by name, and what its `forward` gives, as its source writes it."""

    shapes: Shapes
    answer: str


def draft_torchscript(path: Path, hints: Hints) -> Draft:
    """Raises ConfigError for a damaged file, and for a program whose answer is not known."""
    metadata = read_metadata(path)
    if {"task", "names", "imgsz"} <= metadata.keys():
        return _draft_ultralytics(path, hints, metadata)
    program = read_program(path)
    task = hints.task or task_of(program, path)
    name = name_of(path, hints)
    labels = choose_labels(name, hints, None, count_classes(program.shapes), "")
    recipe = {
        "name": name,
        "task": task if hints.task else Noted(task, f"its program gives {program.answer}"),
        "model": {"source": "torchscript", "file": path},
        "labels": labels.value,
        "preprocessing": {
            key: {part: assume(entry, UNTOLD) for part, entry in value.items()}
            if isinstance(value, dict)
            else assume(value, UNTOLD)
            for key, value in {**CLASSIFIER, **(GRAY if takes_gray(program.shapes) else {})}.items()
        },
    }
    notes = (*labels.notes, "size, crop, mean and std of its training; the recipe has those of ImageNet")
    return Draft(recipe, labels.files, notes)


def _draft_ultralytics(path: Path, hints: Hints, metadata: Mapping[str, Any]) -> Draft:
    """Return that of a file whose metadata are those that Ultralytics' exporter also writes into ONNX files."""
    from mar_tools.drafting.onnx_drafts import ULTRALYTICS_ROW, ModelFacts, draft_ultralytics
    from mar_tools.exporting.onnx_files import ModelInput

    takes = ModelInput("images", torch.float32, False, 3, None, None, {})
    texts = {key: str(value) for key, value in metadata.items()}
    facts = ModelFacts(takes, texts, ULTRALYTICS_ROW if metadata.get("end2end") is True else None, "", False)
    draft = draft_ultralytics(path, hints, facts)
    return replace(draft, recipe={**draft.recipe, "model": {**draft.recipe["model"], "source": "torchscript"}})


def read_metadata(path: Path) -> Mapping[str, Any]:
    """Return what an exporter wrote beside the program, as JSON; nothing of another file."""
    reader = torch._C.PyTorchFileReader(str(path))
    try:
        found = orjson.loads(reader.get_record(METADATA)) if METADATA in reader.get_all_records() else {}
    except (RuntimeError, orjson.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def task_of(program: Program, path: Path) -> str:
    """Raises ConfigError for programs that give other than one tensor."""
    if program.answer in ("Tensor", UNSTATED):
        return "classification"
    raise ConfigError(
        f"{path}: its program gives {program.answer}, and not one tensor of classes; save the state dict of its "
        "network, or trace it with a wrapper that gives boxes (N, Q, 4) and scores (N, Q, C), and state "
        "`model: output:` (docs/use/recipes.md)"
    )


def takes_gray(shapes: Shapes) -> bool:
    """Return whether the first convolution takes one channel."""
    first = next((shape for shape in shapes.values() if len(shape) == 4), ())
    return len(first) == 4 and first[1] == 1


def count_classes(shapes: Shapes, task: str = "classification") -> int | None:
    """Return the outputs of the last layer with a bias, of a detector those of its class scores; None without one."""
    layers = [name for name, shape in shapes.items() if name.endswith("bias") and len(shape) == 1]
    if task == "detection":
        layers = [name for name in layers if name.endswith("cls_score.bias")]
    return shapes[layers[-1]][0] if layers else None


def read_program(path: Path) -> Program:
    """Raises ConfigError for a damaged file."""
    reader = torch._C.PyTorchFileReader(str(path))
    try:
        root = _Shapes(io.BytesIO(reader.get_record("data.pkl"))).load()
        shapes = dict(_name_tensors(root, ""))
        return Program(shapes, _find_answer(reader, root.name))
    except (RuntimeError, pickle.UnpicklingError, EOFError, AttributeError, ValueError, IndexError, TypeError) as error:
        raise ConfigError(f"{path}: a damaged TorchScript file ({type(error).__name__})") from error


class _Object:
    """An object of a class of the file: its attributes, and nothing of its code."""

    name = ""

    def __init__(self, *_: Any) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


@dataclass(frozen=True)
class _Tensor:
    shape: tuple[int, ...]


def _rebuild(_: Any, __: Any, size: tuple[int, ...], *___: Any) -> _Tensor:
    return _Tensor(tuple(size))


class _Shapes(pickle.Unpickler):
    """Unpickles the objects of a TorchScript file as plain ones, and its tensors as shapes. Imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return type(name, (_Object,), {"name": f"{module}.{name}"})
        if module == "torch._utils" and name in TENSORS:
            return _rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch.jit._pickle" and name.startswith(("build_", "restore_")):
            return lambda *values: list(values[0]) if values else []
        if module == "torch" and name.endswith("Storage"):
            return name
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a TorchScript file")

    def persistent_load(self, pid: Any) -> Any:
        return pid


def _name_tensors(value: Any, prefix: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    attributes = value.attributes if isinstance(value, _Object) else {}
    for name, inner in attributes.items():
        if isinstance(inner, _Tensor):
            yield prefix + name, inner.shape
        elif isinstance(inner, _Object):
            yield from _name_tensors(inner, f"{prefix}{name}.")


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
