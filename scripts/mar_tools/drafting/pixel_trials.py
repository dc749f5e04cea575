"""Which scaling of pixels a network was trained with: nothing in its file says it, but its confidence tells.

A trained detector is surest of pictures that are scaled as those that it learnt from, and finds nothing in others. A
classifier is sure of everything where its pixels are far too large, so it is not asked.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mar_tools.drafting.drafts import assume, without_notes
from mar_tools.drafting.output_forms import Reading
from mar_tools.images import load_encoded_images
from mar_tools.models.normalisations import MINUS_MEAN, NORMALISATIONS, write_normalisation
from vision_serving.config import ImageLimits, PreprocessingConfig
from vision_serving.graphs.construction import build_graph
from vision_serving.graphs.inputs import NO_INPUTS
from vision_serving.graphs.outputs import OutputFormat
from vision_serving.pictures.decoding import decode_image
from vision_serving.pictures.resizing import preprocess_images

PICTURES = 8
ORDERS = ("rgb", "bgr")
CLEAR = 0.05  # of confidence: less is chance
SCALINGS = {name: write_normalisation(*values) for name, values in NORMALISATIONS.items() if name != MINUS_MEAN}
IMAGENET, GRAY = "ImageNet's mean and std", "mean 0 and std 1"
PLAIN_SCALING = f"{GRAY} rgb"
USUAL = {  # by task, or by whose head it is
    "classification": f"{IMAGENET} rgb",
    "embedding": f"{IMAGENET} rgb",
    "detection": PLAIN_SCALING,
    "YOLOX": "pixels in [0, 255] bgr",
    "GFL": f"{IMAGENET} rgb",
}
UNKNOWN = "how its pixels were scaled in training"
ORDER = "the order of its colours, as its first steps scale the pixels themselves"

Scalings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Scaling:
    """values: mean, std and color_order of the recipe."""

    values: Mapping[str, Any]
    notes: tuple[str, ...]


def scalings_of(channels: int) -> Scalings:
    """Return what is tried, by name: mean and std of each channel, and for three their order."""
    if channels == 1:
        return {
            name: {"channels": 1, "mean": values["mean"][:1], "std": values["std"][:1]}
            for name, values in SCALINGS.items()
            if name != IMAGENET
        }
    return {
        f"{name} {order}": {**values, "color_order": order} for name, values in SCALINGS.items() for order in ORDERS
    }


def choose_scaling(
    network: nn.Module, reading: Reading, resize: Mapping[str, Any], images: Path | None, scalings: Scalings
) -> Scaling:
    """Choose the scaling that a network is surest with on some pictures, the usual one where none is clearly better.

    scalings: all of them, or those of the one range that the file takes.
    """
    form = without_notes(resize)
    usual = USUAL.get(reading.family, USUAL[reading.task]) if GRAY not in scalings else GRAY
    usual = usual if usual in scalings else next(iter(scalings))
    unknown = UNKNOWN if len(scalings) > len(ORDERS) else ORDER
    if len(scalings) == 1:
        return Scaling(_note(scalings[usual], f"{usual}; its first steps scale the pixels"), ())
    if reading.task != "detection":
        return Scaling(_note(scalings[usual], f"{usual}; usual for {reading.task}"), (unknown,))
    with _written_output(reading) as output:
        sure = {name: _measure(network, output, {**form, **values}, images) for name, values in scalings.items()}
    best, second = sorted(sure, key=lambda name: sure[name], reverse=True)[:2]
    count = len(load_encoded_images(images, PICTURES))
    least = CLEAR * (PICTURES / count) ** 0.5  # by chance, fewer pictures differ more
    is_clear = sure[best] > sure[usual if best != usual else second] + least
    chosen = best if is_clear else usual
    pictures = f"{count} of {images}" if images else f"{count} photographs"
    tried = ", ".join(f"{name} {confidence:.2f}" for name, confidence in sure.items())
    reason = "the network is surest with it" if is_clear else f"usual for {reading.family or reading.task}"
    told = "" if is_clear or count == PICTURES else f", which are too few to tell: give {PICTURES} with --images"
    return Scaling(
        _note(scalings[chosen], f"{chosen}; {reason}"), (f"{unknown}. Mean confidence on {pictures}{told}: {tried}",)
    )


def _note(values: Mapping[str, Any], why: str) -> dict[str, Any]:
    return {key: value if key == "channels" else assume(value, why) for key, value in values.items()}


@contextmanager
def _written_output(reading: Reading) -> Iterator[OutputFormat]:
    """Give the form of the answers, with the files that it needs in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in reading.files.items():
            (Path(folder) / name).write_bytes(content)
        yield OutputFormat.model_validate(without_notes(reading.output)).located_in(Path(folder))


def _measure(network: nn.Module, output: OutputFormat, form: Mapping[str, Any], images: Path | None) -> float:
    """Return the mean over the pictures of the best score of each."""
    preprocessing = PreprocessingConfig.model_validate(form)
    graph = build_graph(network, "detection", preprocessing, output, getattr(network, "size_inputs", NO_INPUTS))
    best = []
    for data in load_encoded_images(images, PICTURES):
        batch = preprocess_images([decode_image(data, ImageLimits())], preprocessing)
        with torch.inference_mode():
            best.append(graph(batch.pixels)["scores"].max())
    return float(torch.tensor(best).mean())
