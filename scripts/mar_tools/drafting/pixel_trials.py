"""Which scaling of pixels a network was trained with: nothing in its file says it, but its confidence tells.

A trained detector is surest of pictures that are scaled as those that it learnt from, and finds nothing in others. A
classifier is sure of everything where its pixels are far too large, so for it nothing is concluded.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mar_tools.drafting.drafts import assume, without_notes
from mar_tools.drafting.output_forms import Reading
from mar_tools.images import load_encoded_images
from mar_tools.models.normalisations import MINUS_MEAN, NORMALISATIONS, write_normalisation
from vision_serving.config import ImageLimits, PreprocessingConfig
from vision_serving.graphs.construction import build_graph
from vision_serving.graphs.outputs import OutputFormat
from vision_serving.options import Task
from vision_serving.pictures.decoding import decode_image
from vision_serving.pictures.resizing import preprocess_images

PICTURES = 8
CLEAR = 0.05  # of confidence: less is chance
SCALINGS = {name: write_normalisation(*values) for name, values in NORMALISATIONS.items() if name != MINUS_MEAN}
USUAL: dict[str, tuple[str, str]] = {  # by task, or by whose head it is
    "classification": ("ImageNet's mean and std", "rgb"),
    "detection": ("mean 0 and std 1", "rgb"),
    "YOLOX": ("pixels in [0, 255]", "bgr"),
    "GFL": ("ImageNet's mean and std", "rgb"),
}


@dataclass(frozen=True)
class Scaling:
    """values: mean, std and color_order of the recipe."""

    values: Mapping[str, Any]
    notes: tuple[str, ...]


def choose_scaling(network: nn.Module, reading: Reading, resize: Mapping[str, Any], images: Path | None) -> Scaling:
    """Choose the scaling that a network is surest with on some pictures, the usual one where none is clearly better."""
    form = without_notes(resize)
    with _written_output(reading) as output:
        sure = {
            (name, order): _measure(network, reading.task, output, {**form, **values, "color_order": order}, images)
            for name, values in SCALINGS.items()
            for order in ("rgb", "bgr")
        }
    usual = USUAL.get(reading.family, USUAL[reading.task])
    best = max(sure, key=lambda key: sure[key])
    decides = reading.task == "detection" and sure[best] > sure[usual] + CLEAR
    chosen = best if decides else usual
    pictures = f"{images}" if images else "photographs"
    tried = ", ".join(f"{name} {order} {sure[name, order]:.2f}" for name, order in sure)
    reason = "the network is surest with it" if decides else f"usual for {reading.family or reading.task}"
    values = SCALINGS[chosen[0]]
    note = f"how its pixels were scaled in training. Mean confidence on {pictures}: {tried}"
    lines = {"mean": assume(values["mean"], f"{chosen[0]}; {reason}"), "std": values["std"]}
    return Scaling({**lines, "color_order": assume(chosen[1], reason)}, (note,))


@contextmanager
def _written_output(reading: Reading) -> Iterator[OutputFormat]:
    """Give the form of the answers, with the files that it needs in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in reading.files.items():
            (Path(folder) / name).write_bytes(content)
        yield OutputFormat.model_validate(without_notes(reading.output)).located_in(Path(folder))


def _measure(
    network: nn.Module, task: Task, output: OutputFormat, form: Mapping[str, Any], images: Path | None
) -> float:
    """Return the mean over the pictures of the best score of each."""
    preprocessing = PreprocessingConfig.model_validate(form)
    graph = build_graph(network, task, preprocessing, output)
    best = []
    for data in load_encoded_images(images, PICTURES):
        batch = preprocess_images([decode_image(data, ImageLimits())], preprocessing)
        with torch.inference_mode():
            best.append(_best_score(graph(batch.pixels)))
    return float(torch.tensor(best).mean())


def _best_score(outputs: Mapping[str, Tensor]) -> float:
    if "logits" in outputs:
        return float(outputs["logits"].softmax(-1).max())
    return float(outputs["scores"].max())
