"""What a training leaves: weights, labels, pictures to calibrate and verify with, and the recipe that builds them."""

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import torch
import yaml
from safetensors.torch import save
from torch import nn

from mar_tools.images import spread_evenly
from mar_tools.models.checkpoints import preprocessing_values
from mar_tools.training.annotated import AnnotatedPicture
from mar_tools.training.detector_networks import COMPACT_FILES, COMPACT_FOLDER, DetectorStart
from mar_tools.training.folders import LabelledPicture
from mar_tools.training.networks import Start
from mar_tools.training.splitting import Of, Split
from mar_tools.training.whole_files import write_whole
from vision_serving.options import Task

CALIBRATION, HELDOUT, WEIGHTS, LABELS, RECIPE = (
    "calibration",
    "heldout",
    "weights.safetensors",
    "labels.json",
    "recipe.yaml",
)
CALIBRATION_COUNT, HELDOUT_COUNT = 128, 1000  # what a build takes of either
ANNOTATIONS, BACKGROUND = "annotations.json", "__background__"
ALLOWED_DROP = 0.01  # of accuracy: that an archive may lose against what was trained


def hand_over_classifier(
    folder: Path,
    name: str,
    start: Start,
    labels: Sequence[str],
    split: Split[LabelledPicture],
    hits: Mapping[LabelledPicture, bool],
) -> Path:
    """Write the recipe and all that it names into a folder; return the recipe.

    hits: whether each picture of the test is told right. The build verifies with at most a thousand of them, and
    requires their share, less what an archive may lose.
    """
    take_back_recipe(folder)
    heldout = spread_evenly(split["test"], HELDOUT_COUNT)
    accuracy = sum(hits[picture] for picture in heldout) / len(heldout)
    copy_pictures(spread_evenly(split["train"], CALIBRATION_COUNT), folder / CALIBRATION)
    copy_pictures(heldout, folder / HELDOUT, {each: labels[each.class_id] for each in heldout})
    verification = {"labels": "folders", **floors("min_accuracy", accuracy)}
    return hand_over(folder, name, start, "classification", labels, verification)


def hand_over_detector(
    folder: Path,
    name: str,
    start: DetectorStart,
    labels: Sequence[str],
    pictures: tuple[Sequence[AnnotatedPicture], Sequence[AnnotatedPicture]],
    mean_precision: float,
) -> Path:
    """Write the recipe and all that it names into a folder; return the recipe.

    pictures: of the training, and those that the build verifies with, on which the network has `mean_precision`.
    """
    take_back_recipe(folder)
    train, heldout = pictures
    copy_pictures(spread_evenly(train, CALIBRATION_COUNT), folder / CALIBRATION)
    copies = copy_pictures(heldout, folder / HELDOUT)
    (folder / HELDOUT / ANNOTATIONS).write_bytes(orjson.dumps(to_coco(copies, labels)) + b"\n")
    if start.source.source == "python":
        for file in COMPACT_FILES:
            shutil.copyfile(COMPACT_FOLDER / file, folder / file)
    verification = {"annotations": f"{HELDOUT}/{ANNOTATIONS}", **floors("min_map", mean_precision)}
    return hand_over(folder, name, start, "detection", [*[BACKGROUND] * start.first_class, *labels], verification)


def floors(bound: str, reached: float) -> dict[str, float]:
    """Return what an archive must keep of the figure that was reached, in [0, 1]."""
    return {"max_accuracy_drop": ALLOWED_DROP, bound: math.floor(1000 * max(0.0, reached - ALLOWED_DROP)) / 1000}


def to_coco(copies: Mapping[AnnotatedPicture, Path], labels: Sequence[str]) -> dict[str, Any]:
    """Return COCO's annotations of pictures that lie beside them, category ids from 1."""
    boxes = [(number, box) for number, picture in enumerate(copies, start=1) for box in picture.boxes]
    return {
        "images": [
            {"id": number, "file_name": path.name, "height": picture.size_hw[0], "width": picture.size_hw[1]}
            for number, (picture, path) in enumerate(copies.items(), start=1)
        ],
        "annotations": [
            {
                "id": number,
                "image_id": image_id,
                "category_id": box.class_id + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": int(box.is_crowd),
            }
            for number, (image_id, box) in enumerate(boxes, start=1)
            for x1, y1, x2, y2 in [box.xyxy]
        ],
        "categories": [{"id": number, "name": label} for number, label in enumerate(labels, start=1)],
    }


def hand_over(
    folder: Path, name: str, start: Start, task: Task, labels: Sequence[str], verification: Mapping[str, Any]
) -> Path:
    """Write weights, labels and recipe. verification: beside its images, which are there as those of calibration."""
    save_weights(start.network, folder / WEIGHTS)
    write_whole(folder / LABELS, orjson.dumps(list(labels), option=orjson.OPT_INDENT_2) + b"\n")
    source = start.source.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    recipe = {
        "name": name,
        "version": "1.0",
        "task": task,
        "model": {**source, "weights": WEIGHTS},
        "labels": LABELS,
        "preprocessing": preprocessing_values(start.preprocessing),
        "calibration": {"images": CALIBRATION},
        "verification": {"images": HELDOUT, **verification},
    }
    return write_recipe(recipe, folder / RECIPE, "Written by train_model.py; training.json has how it was trained.")


def write_recipe(recipe: dict[str, Any], path: Path, title: str) -> Path:
    """Write a recipe whose lists stand in one line each."""
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
    write_whole(path, f"# {title}\n{text}".encode())
    return path


def take_back_recipe(folder: Path) -> None:
    """Remove an earlier recipe, before what it names is replaced: it comes last, so a folder that has one is whole."""
    (folder / RECIPE).unlink(missing_ok=True)


def save_weights(network: nn.Module, path: Path) -> None:
    """Write the state dict, whole or not at all."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    write_whole(path, save(state))


def copy_pictures(pictures: Sequence[Of], folder: Path, folders: Mapping[Of, str] | None = None) -> dict[Of, Path]:
    """Copy pictures into a folder that holds nothing else then; return the copies. folders: below which name each."""
    shutil.rmtree(folder, ignore_errors=True)
    copies: dict[Of, Path] = {}
    taken: set[Path] = set()
    for picture in pictures:
        place = folder if folders is None else folder / folders[picture]
        place.mkdir(parents=True, exist_ok=True)
        copy = place / picture.path.name
        if copy in taken:  # from two folders, in each of which it has this name
            copy = place / f"{picture.digest[:12]}-{len(taken)}-{picture.path.name}"
        taken.add(copy)
        copies[picture] = copy
        shutil.copyfile(picture.path, copy)
    return copies


@torch.inference_mode()
def count_hits(graph: nn.Module, batches: Any, device: torch.device) -> list[bool]:
    """Return for each picture whether the graph that is served gives its class the best score."""
    hits: list[bool] = []
    graph = graph.to(device)
    for pixels, class_ids in batches:
        hits += (graph(pixels.to(device))["logits"].argmax(1).cpu() == class_ids).tolist()
    return hits
