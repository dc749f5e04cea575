"""An ONNX file -> a recipe: what its exporter noted, else what its graph and its answers on photographs tell."""

import ast
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch

from mar_tools.drafting.drafts import UNSCALED, Draft, Hints, Noted, assume, choose_labels, name_of
from mar_tools.drafting.output_forms import Reading, read_outputs
from mar_tools.drafting.pixel_trials import choose_scaling
from mar_tools.exporting.onnx_files import ModelInput, read_input
from mar_tools.models.example_pixels import load_pixels
from vision_serving.config import PreprocessingConfig
from vision_serving.errors import ConfigError
from vision_serving.graphs.onnx_network import OnnxNetwork
from vision_serving.graphs.pixels import Normalize
from vision_serving.options import Task

SERVED = {"detect": "detection", "classify": "classification"}
CLASSIFIER_SIDE, DETECTOR_SIDE = 224, 640
CROP_SHARE = 224 / 256


def draft_onnx(path: Path, hints: Hints) -> Draft:
    """Raises ConfigError for what is no ONNX file of one image, and for answers of no known form."""
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf has errors of its own
        raise ConfigError(f"{path}: no ONNX file ({type(error).__name__})") from error
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    model_input = read_input(model, path)
    if {"task", "names", "imgsz"} <= metadata.keys():
        return _draft_ultralytics(path, hints, metadata, model_input)
    return _draft_by_answers(path, hints, model_input)


def _draft_ultralytics(path: Path, hints: Hints, metadata: Mapping[str, str], model_input: ModelInput) -> Draft:
    """Read what Ultralytics' exporter writes: task, names, imgsz."""
    where = "from the metadata that Ultralytics' exporter wrote"
    task = SERVED.get(metadata["task"])
    if task is None:
        raise ConfigError(f"{path}: its metadata say task {metadata['task']!r}; expected one of {sorted(SERVED)}")
    size = _read_size(metadata, model_input)
    names = _read_names(metadata["names"])
    name = name_of(path, hints)
    labels = choose_labels(name, hints, names, None, where)
    recipe: dict[str, Any] = {"name": name, "task": Noted(task, where), "model": {"source": "onnx", "file": path}}
    if task == "detection":
        recipe["model"]["output"] = {"format": "yolo", "layout": "columns", "objectness": False}
        resize = {"mode": "letterbox", "size": Noted(size, where)}
        recipe["options"] = {"score_threshold": 0.25, "iou_threshold": 0.7}
        preprocessing = {"resize": resize, **UNSCALED}
    else:
        recipe["model"]["output"] = {"format": "probabilities"}
        resize = {"mode": "shortest_edge", "size": Noted(size[0], where)}
        preprocessing = {"resize": resize, "crop": size, **UNSCALED}
    return Draft({**recipe, "labels": labels.value, "preprocessing": preprocessing}, labels.files, labels.notes)


def _read_size(metadata: Mapping[str, str], model_input: ModelInput) -> list[int]:
    with contextlib.suppress(ValueError, SyntaxError, TypeError):
        size = [int(side) for side in ast.literal_eval(metadata["imgsz"])]
        if len(size) == 2 and all(side > 0 for side in size):
            return size
    return [model_input.height or DETECTOR_SIDE, model_input.width or DETECTOR_SIDE]


def _read_names(text: str) -> list[str] | None:
    """Return the names of a Python literal `{0: 'person', 1: ...}`; None for what is none."""
    with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
        names = ast.literal_eval(text)
        if isinstance(names, dict) and set(names) == set(range(len(names))):
            return [str(names[number]) for number in range(len(names))]
    return None


@dataclass(frozen=True)
class Size:
    """What pictures become: height and width, and why."""

    height: int
    width: int
    why: str


def _find_size(model_input: ModelInput, side: int) -> Size:
    if model_input.height and model_input.width:
        return Size(model_input.height, model_input.width, f"input {model_input.name!r} of the file")
    return Size(model_input.height or side, model_input.width or side, "assumed: the file takes any size")


def _draft_by_answers(path: Path, hints: Hints, model_input: ModelInput) -> Draft:
    network = OnnxNetwork(path)
    size = _find_size(model_input, DETECTOR_SIDE if hints.task == "detection" else CLASSIFIER_SIDE)
    reading = _ask(network, size, path)
    if hints.task is not None and hints.task != reading.task:
        raise ConfigError(f"{path}: its answers are those of {reading.task}, not of {hints.task}")
    preprocessing = resize_for(reading.task, size)
    scaling = choose_scaling(network, reading, preprocessing, hints.images)
    name = name_of(path, hints)
    labels = choose_labels(name, hints, None, reading.classes, "")
    model = {"source": "onnx", "file": path}
    if reading.output:
        model["output"] = reading.output
    recipe = {
        "name": name,
        "task": Noted(reading.task, "by the shapes of its answers"),
        "model": model,
        "labels": labels.value,
        "preprocessing": {**preprocessing, **scaling.values},
    }
    return Draft(recipe, labels.files, (*labels.notes, *reading.notes, *scaling.notes))


def _ask(network: OnnxNetwork, size: Size, path: Path) -> Reading:
    """Read the answers to two photographs in the form that the file takes."""
    form = {"resize": {"mode": "exact", "size": [size.height, size.width]}, **UNSCALED}
    preprocessing = PreprocessingConfig.model_validate(form)
    images = Normalize(preprocessing)(load_pixels(2, preprocessing))
    try:
        with torch.inference_mode():
            answers = network(images)
    except Exception as error:  # ONNX Runtime's own errors
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path}: it does not take pictures of {size.height} x {size.width} ({reason})") from error
    outputs = {"output": answers} if isinstance(answers, torch.Tensor) else answers
    try:
        return read_outputs(outputs, (size.height, size.width))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def resize_for(task: Task, size: Size) -> dict[str, Any]:
    """Return the resizing that is usual for a task and a size, as nothing in a file tells it."""
    both = [size.height, size.width]
    if task == "detection":
        return {"resize": {"mode": assume("letterbox", "usual for detectors"), "size": Noted(both, size.why)}}
    if size.height != size.width:
        return {"resize": {"mode": assume("exact", "the image is not square"), "size": Noted(both, size.why)}}
    edge = round(size.height / CROP_SHARE)
    resize: dict[str, Any] = {
        "mode": "shortest_edge",
        "size": assume(edge, "usual for classifiers, 256 for a crop of 224"),
    }
    return {"resize": resize, "crop": Noted(both, size.why)}
