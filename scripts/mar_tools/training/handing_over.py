"""What a training leaves: weights, labels, pictures to calibrate and verify with, and the recipe that builds them."""

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from mar_tools.images import spread_evenly
from mar_tools.models.checkpoints import preprocessing_values
from mar_tools.training.folders import LabelledPicture
from mar_tools.training.networks import Start
from mar_tools.training.splitting import Split

CALIBRATION, HELDOUT, WEIGHTS, LABELS, RECIPE = (
    "calibration",
    "heldout",
    "weights.safetensors",
    "labels.json",
    "recipe.yaml",
)
CALIBRATION_COUNT, HELDOUT_COUNT = 128, 1000  # what a build takes of either
ALLOWED_DROP = 0.01  # of accuracy: that an archive may lose against what was trained


def choose_heldout(split: Split) -> list[LabelledPicture]:
    """Return the pictures that a build verifies with: those of the test, at most a thousand from all classes."""
    return spread_evenly(split["test"], HELDOUT_COUNT)


def hand_over(
    folder: Path, name: str, start: Start, labels: Sequence[str], split: Split, hits: Mapping[LabelledPicture, bool]
) -> Path:
    """Write the recipe and all that it names into a folder; return the recipe.

    hits: whether each picture of the test is told right. The build requires their share of `choose_heldout`, less what
    an archive may lose.
    """
    heldout = choose_heldout(split)
    accuracy = sum(hits[picture] for picture in heldout) / len(heldout)
    save_weights(start.network, folder / WEIGHTS)
    (folder / LABELS).write_bytes(orjson.dumps(list(labels), option=orjson.OPT_INDENT_2) + b"\n")
    copy_pictures(spread_evenly(split["train"], CALIBRATION_COUNT), folder / CALIBRATION)
    copy_pictures(heldout, folder / HELDOUT, labels)
    source = start.source.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    recipe = {
        "name": name,
        "version": "1.0",
        "task": "classification",
        "model": {**source, "weights": WEIGHTS},
        "labels": LABELS,
        "preprocessing": preprocessing_values(start.preprocessing),
        "calibration": {"images": CALIBRATION},
        "verification": {
            "images": HELDOUT,
            "labels": "folders",
            "max_accuracy_drop": ALLOWED_DROP,
            "min_accuracy": math.floor(1000 * max(0.0, accuracy - ALLOWED_DROP)) / 1000,
        },
    }
    return write_recipe(recipe, folder / RECIPE, "Written by train_model.py; training.json has how it was trained.")


def write_recipe(recipe: dict[str, Any], path: Path, title: str) -> Path:
    """Write a recipe whose lists stand in one line each."""
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
    path.write_text(f"# {title}\n{text}", encoding="utf-8")
    return path


def save_weights(network: nn.Module, path: Path) -> None:
    """Write the state dict, whole or not at all."""
    partial = path.with_suffix(".part")
    save_file(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}, partial
    )
    partial.replace(path)


def copy_pictures(pictures: Sequence[LabelledPicture], folder: Path, labels: Sequence[str] | None = None) -> None:
    """Copy pictures into a folder that holds nothing else then, below the names of their classes where given."""
    shutil.rmtree(folder, ignore_errors=True)
    taken: set[Path] = set()
    for picture in pictures:
        place = folder if labels is None else folder / labels[picture.class_id]
        place.mkdir(parents=True, exist_ok=True)
        copy = place / picture.path.name
        if copy in taken:  # from two folders, in each of which it has this name
            copy = place / f"{picture.digest[:12]}-{picture.path.name}"
        taken.add(copy)
        shutil.copyfile(picture.path, copy)


@torch.inference_mode()
def count_hits(graph: nn.Module, batches: Any, device: torch.device) -> list[bool]:
    """Return for each picture whether the graph that is served gives its class the best score."""
    hits: list[bool] = []
    graph = graph.to(device)
    for pixels, class_ids in batches:
        hits += (graph(pixels.to(device))["logits"].argmax(1).cpu() == class_ids).tolist()
    return hits
