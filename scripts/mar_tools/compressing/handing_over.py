"""The folder of a result: weights, labels, pictures, and a recipe that says what the network was before."""

import math
import os
import shutil
from pathlib import Path
from typing import Any

import orjson
from torch import nn

from mar_tools.compressing.originals import Original
from mar_tools.compressing.steps import Steps
from mar_tools.images import find_images, spread_evenly
from mar_tools.models.checkpoints import preprocessing_values
from mar_tools.training.folders import LabelledPicture
from mar_tools.training.handing_over import (
    CALIBRATION,
    CALIBRATION_COUNT,
    HELDOUT,
    LABELS,
    RECIPE,
    WEIGHTS,
    copy_pictures,
    save_weights,
    take_back_recipe,
    write_recipe,
)
from mar_tools.training.splitting import Split
from mar_tools.training.whole_files import write_whole
from vision_serving.config import PreprocessingConfig
from vision_serving.graphs.sources import NetworkSource


def hand_over(
    folder: Path,
    name: str,
    steps: Steps,
    source: NetworkSource,
    network: nn.Module,
    preprocessing: PreprocessingConfig,
    original: Original,
    split: Split[LabelledPicture],
    max_drop: float,
) -> Path:
    """Write the recipe and all that it names; return the recipe.

    It verifies with the pictures of the original's recipe. Its floor is the baseline's accuracy less `max_drop`: the
    build compares each export with this network itself, which says nothing of what compressing has cost.
    """
    folder.mkdir(parents=True, exist_ok=True)
    take_back_recipe(folder)
    save_weights(network, folder / WEIGHTS)
    write_whole(folder / LABELS, orjson.dumps(original.checkpoint.labels, option=orjson.OPT_INDENT_2) + b"\n")
    copy_pictures(spread_evenly(split["train"], CALIBRATION_COUNT), folder / CALIBRATION)
    recipe, baseline = original.recipe, original.baseline
    verification: dict[str, Any] = recipe.verification.model_dump(mode="json", exclude_defaults=True)
    verification["images"] = link_pictures(recipe.path(str(recipe.verification.images)), folder / HELDOUT)
    if recipe.verification.labels != "folders":
        verification["labels"] = str(recipe.path(str(recipe.verification.labels)).absolute())
    verification["min_accuracy"] = math.floor(10_000 * max(0.0, original.baseline_accuracy - max_drop)) / 10_000
    values = {
        "name": name,
        "version": recipe.version,
        "task": recipe.task,
        "model": {**copy_source(source, recipe.folder, folder), "weights": WEIGHTS},
        "labels": LABELS,
        "preprocessing": preprocessing_values(preprocessing),
        **kept_sections(recipe),
        "calibration": {"images": CALIBRATION},
        "verification": verification,
        "baseline": {
            **baseline.model_dump(exclude_none=True),
            "accuracy": round(original.baseline_accuracy, 4),
            "steps": "; ".join(filter(None, (baseline.steps, steps.describe()))),
        },
    }
    if steps.quantise is not None:
        values |= {"precision": "int8", "quantization": {"scheme": "checkpoint"}}
    return write_recipe(values, folder / RECIPE, "Written by compress_model.py; training.json has how it was made.")


def kept_sections(recipe: Any) -> dict[str, Any]:
    """Return what the original's recipe says of how requests are answered."""
    stated = recipe.model_dump(mode="json", exclude_defaults=True)
    return {key: stated[key] for key in ("options", "limits", "colours", "scaled_decoding") if key in stated}


def copy_source(source: NetworkSource, before: Path, folder: Path) -> dict[str, Any]:
    """Return what rebuilds the network, and copy the Python files that it names."""
    for file in filter(None, (source.file, source.output.decode)):
        place = before / file
        if place.resolve() != (folder / file).resolve() and place.is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(place, folder / file)
    stated = source.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {key: value for key, value in stated.items() if value}


def link_pictures(pictures: Path, folder: Path) -> str:
    """Put pictures into a folder of the result, as hard links where the file system has them; return its name."""
    shutil.rmtree(folder, ignore_errors=True)
    root = pictures if pictures.is_dir() else pictures.parent
    for picture in find_images(pictures):
        target = folder / picture.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        _link_or_copy(picture.resolve(), target)  # of a symbolic link, what it leads to: its own path may be relative
    return folder.name


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk
        shutil.copyfile(source, target)
