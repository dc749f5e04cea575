"""A TorchScript file -> a recipe: its tensors and the form of its answer are read, its program does not run."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from mar_tools.drafting.architectures import published_labels
from mar_tools.drafting.drafts import IMAGENET, Draft, Hints, Noted, assume, choose_labels, name_of
from mar_tools.drafting.script_objects import UNSTATED, Program, Shapes, open_script, read_program
from mar_tools.drafting.scripted_detectors import DETECTOR_ANSWER, find_scripted
from mar_tools.drafting.ultralytics_drafts import draft_ultralytics, is_of_ultralytics
from vision_serving.errors import ConfigError

METADATA = "extra/config.txt"  # of Ultralytics
UNTOLD = "ImageNet's, as nothing in the file tells"
GRAY = {"channels": 1, "mean": [0], "std": [1]}
CLASSIFIER = {"resize": {"mode": "shortest_edge", "size": 256}, "crop": [224, 224], **IMAGENET}


def draft_torchscript(path: Path, hints: Hints) -> Draft:
    """Raises ConfigError for a damaged file, and for a program whose answer is not known."""
    metadata = read_metadata(path)
    if is_of_ultralytics(metadata):
        return _draft_ultralytics(path, hints, metadata)
    program = read_program(path)
    if program.answer == DETECTOR_ANSWER:
        return _draft_detector(path, hints, program)
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


def _draft_detector(path: Path, hints: Hints, program: Program) -> Draft:
    """Return that of a detector of torchvision that was scripted."""
    scripted = find_scripted(program, path, hints.architecture)
    name = name_of(path, hints)
    names, where = published_labels(scripted.architecture)
    labels = choose_labels(name, hints, names, scripted.architecture.classes, where)
    recipe = {
        "name": name,
        "task": Noted("detection", f"its program gives {program.answer}"),
        "model": scripted.model,
        "labels": labels.value,
        "preprocessing": Noted("auto", "the network's own"),
    }
    return Draft(recipe, {**labels.files, **scripted.files}, labels.notes)


def _draft_ultralytics(path: Path, hints: Hints, metadata: Mapping[str, Any]) -> Draft:
    """Return that of a file whose metadata are those that Ultralytics' exporter also writes into ONNX files."""
    texts = {key: str(value) for key, value in metadata.items()}
    draft = draft_ultralytics(path, hints, texts, None, (None, None))
    return replace(draft, recipe={**draft.recipe, "model": {**draft.recipe["model"], "source": "torchscript"}})


def read_metadata(path: Path) -> Mapping[str, Any]:
    """Return what an exporter wrote beside the program, as JSON; nothing of another file."""
    reader = open_script(path)
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
