"""An ONNX file -> a recipe: what its exporter noted, else what its graph and its answers on photographs tell."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch

from mar_tools.drafting.box_forms import choose_by_mirroring
from mar_tools.drafting.conventions import find_hints
from mar_tools.drafting.drafts import (
    PADDING,
    Draft,
    Hints,
    Labels,
    Noted,
    assume,
    choose_labels,
    name_of,
    read_names,
    without_notes,
)
from mar_tools.drafting.first_steps import find_pixels
from mar_tools.drafting.output_forms import Reading, read_as_vector, read_outputs
from mar_tools.drafting.pixel_trials import GRAY, choose_scaling, scalings_of
from mar_tools.drafting.ultralytics_drafts import draft_ultralytics, is_of_ultralytics
from mar_tools.exporting.onnx_files import ModelInput, dims_of, list_inputs, read_input
from mar_tools.images import load_encoded_images
from mar_tools.models.onnx_weights import list_external_weights
from vision_serving.config import ImageLimits, PreprocessingConfig
from vision_serving.errors import ConfigError
from vision_serving.graphs.inputs import NO_INPUTS, make_size, name_size_inputs
from vision_serving.graphs.onnx_network import OnnxNetwork
from vision_serving.graphs.pixels import Normalize
from vision_serving.options import Task
from vision_serving.pictures.decoding import decode_image
from vision_serving.pictures.resizing import preprocess_images

CLASSIFIER_SIDE, DETECTOR_SIDE = 224, 640
CROP_SHARE = 224 / 256
PHOTOGRAPHS = 3  # that are asked together: the first number of an answer is then hardly theirs by chance
NAMES = {"names", "classes", "labels", "class_names", "character", "id2label"}  # in a file's metadata
ANY_SIZE: dict[Task, str] = {
    "detection": "the size of its pictures, as the file takes any: {size.height} x {size.width} was taken",
    "classification": (
        "the size of its pictures, as the file takes any: {size.height} x {size.width} was taken. A network for lines "
        "of text needs `resize: {{mode: fixed_height, size: [height, width]}}`"
    ),
}


@dataclass(frozen=True)
class ModelFacts:
    """What a file says without being asked.

    last: how many numbers a row of its first output has. pixels: which its first steps take, `` where they do not scale
    them.
    """

    input: ModelInput
    metadata: Mapping[str, str]
    last: int | None
    pixels: str
    from_paddle: bool

    @property
    def takes_any_size(self) -> bool:
        return self.input.height is None or self.input.width is None


def draft_onnx(path: Path, hints: Hints) -> Draft:
    """Raises ConfigError for what is no ONNX file of one image, and for answers of no known form."""
    facts = read_facts(path)
    if is_of_ultralytics(facts.metadata):
        return draft_ultralytics(path, hints, facts.metadata, facts.last, (facts.input.height, facts.input.width))
    return _draft_by_answers(path, hints, facts)


def read_facts(path: Path) -> ModelFacts:
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf has errors of its own
        raise ConfigError(f"{path}: no ONNX file ({type(error).__name__})") from error
    list_external_weights(model, path)  # raises where they are missing
    model_input = _read_image_input(model, path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    last = (dims_of(model.graph.output[0]) or [None])[-1]
    from_paddle = "paddle" in f"{model.producer_name} {model.graph.name}".lower()
    return ModelFacts(model_input, metadata, last, find_pixels(model.graph, model_input), from_paddle)


def _read_image_input(model: onnx.ModelProto, path: Path) -> ModelInput:
    """Read the input of three channels, or of one. Raises ConfigError for others."""
    shape = dims_of(list_inputs(model)[0]) or []
    is_gray = len(shape) == 4 and 1 in (shape[1], shape[3]) and 3 not in (shape[1], shape[3])
    others = {value.name: dims_of(value) or [] for value in list_inputs(model)[1:]}
    if len(shape) == 3 and shape[0] == 3 and not others:
        raise ConfigError(
            f"{path}: it takes one picture {shape} without a place for others, and gives as many boxes as it finds: "
            "so torchvision's detectors are exported, which no engine batches. Build from the weights that it was "
            "exported from: new_recipe.py takes model.state_dict()"
        )
    return read_input(model, path, name_size_inputs(others, NO_INPUTS, str(path)), channels=1 if is_gray else 3)


def find_names(metadata: Mapping[str, str], classes: int | None) -> tuple[list[str] | None, str]:
    """Return the names in the metadata that are as many as the classes."""
    for key in (key for key in metadata if key.lower() in NAMES):
        names = read_names(metadata[key])
        if names is not None and len(names) == classes:
            return names, f"from {key!r} of the file's metadata"
    return None, ""


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


def _draft_by_answers(path: Path, hints: Hints, facts: ModelFacts) -> Draft:
    network = OnnxNetwork(path)
    size = _find_size(facts.input, DETECTOR_SIDE if hints.task == "detection" else CLASSIFIER_SIDE)
    every = scalings_of(facts.input.channels)
    scalings = {name: values for name, values in every.items() if name.startswith(facts.pixels)}
    plain = next((values for name, values in scalings.items() if name.startswith(GRAY)), next(iter(scalings.values())))
    first = _ask(network, size, path, plain, hints)
    reading, asked_size = first.reading, size
    size = _find_size(facts.input, DETECTOR_SIDE if reading.task == "detection" else CLASSIFIER_SIDE)
    resizing = resize_for(reading, size)
    scaling = choose_scaling(network, reading, resizing, hints.images, scalings)
    known = without_notes(scaling.values)  # pixels as it knows them
    asked = first if (known, size) == (plain, asked_size) else _ask(network, size, path, known, hints)
    reading, resizing = asked.reading, resize_for(asked.reading, size)
    output, unsure = choose_by_mirroring(reading.output, asked.answers, asked.mirrored, asked.images)
    name = name_of(path, hints)
    recipe: dict[str, Any] = {"name": name, "task": Noted(reading.task, "by the shapes of its answers")}
    recipe["model"] = {"source": "onnx", "file": path, **({"output": output} if output else {})}
    labels = Labels(None)
    if reading.task != "embedding":
        labels = choose_labels(name, hints, *_names_and_count(facts, reading))
        recipe["labels"] = labels.value
    recipe["preprocessing"] = {**resizing, **scaling.values}
    notes = [*reading.notes, *unsure, *labels.notes, *scaling.notes]
    if without_notes(resizing["resize"]["mode"]) == "letterbox":
        notes.append(PADDING)
    if facts.takes_any_size:
        notes.append(ANY_SIZE[reading.task].format(size=size))
    families = find_hints(reading.task, recipe["preprocessing"], facts.from_paddle and facts.takes_any_size)
    return Draft(recipe, {**labels.files, **reading.files}, tuple(notes), families)


def _names_and_count(facts: ModelFacts, reading: Reading) -> tuple[list[str] | None, int | None, str]:
    names, where = find_names(facts.metadata, reading.classes)
    return names, reading.classes, where


@dataclass(frozen=True)
class Asked:
    """What a network gave for images (N, C, H, W) of photographs, and for them mirrored, and how it is read."""

    reading: Reading
    images: torch.Tensor
    answers: Any
    mirrored: Any


def _ask(network: OnnxNetwork, size: Size, path: Path, scaling: Mapping[str, Any], hints: Hints) -> Asked:
    """Read the answers to photographs in the form that the file takes. Raises ConfigError for those of another task."""
    form = {"resize": {"mode": "exact", "size": [size.height, size.width]}, **scaling}
    preprocessing = PreprocessingConfig.model_validate(form)
    pictures = [decode_image(data, ImageLimits()) for data in load_encoded_images(hints.images, PHOTOGRAPHS)]
    images = Normalize(preprocessing)(preprocess_images(pictures, preprocessing).pixels)
    try:
        with torch.inference_mode():
            sizes = [make_size(kind, images, (size.height, size.width)) for kind in network.size_inputs.values()]
            answers, mirrored = network(images, *sizes), network(images.flip(3), *sizes)
    except Exception as error:  # ONNX Runtime's own errors
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path}: it does not take pictures of {size.height} x {size.width} ({reason})") from error
    try:
        reading = read_outputs(_by_name(answers), (size.height, size.width), len(images))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if hints.task == "embedding" and reading.task == "classification":
        reading = read_as_vector(reading)
    if hints.task is not None and hints.task != reading.task:
        raise ConfigError(f"{path}: its answers are those of {reading.task}, not of {hints.task}")
    return Asked(reading, images, answers, mirrored)


def _by_name(answers: Any) -> Mapping[str, torch.Tensor]:
    return {"output": answers} if isinstance(answers, torch.Tensor) else answers


def resize_for(reading: Reading, size: Size) -> dict[str, Any]:
    """Return the resizing that is usual for a task and a size, as nothing in a file tells it."""
    both = Noted([size.height, size.width], size.why)
    if reading.task == "detection":
        if reading.family == "GFL":
            return {"resize": {"mode": assume("exact", "as PicoDet's programs do"), "size": both}, "antialias": False}
        place = {"pad_place": assume("top_left", "as YOLOX does")} if reading.family == "YOLOX" else {}
        resize = {"mode": assume("letterbox", "usual for detectors"), "size": both, **place}
        return {"resize": resize, "antialias": assume(False, "OpenCV resizes so, with which detectors are trained")}
    if size.height != size.width:
        return {"resize": {"mode": assume("exact", "the image is not square"), "size": both}}
    edge = round(size.height / CROP_SHARE)
    edges = {"mode": "shortest_edge", "size": assume(edge, "usual for classifiers, 256 for a crop of 224")}
    return {"resize": edges, "crop": both}
