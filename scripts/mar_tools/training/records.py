"""What a folder says of the training in it: what was asked for, and what came of it."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from mar_tools.training.whole_files import write_whole
from vision_serving.errors import ConfigError
from vision_serving.validation import read_json

RECORD = "training.json"
UNFINISHED = ("checkpoints", "search", "points", "exports")  # what a training or a ladder goes on with
REPLACED = (*UNFINISHED, "calibration", "heldout")  # folders that a training writes anew


def check_places(output: Path, *sources: Path) -> None:
    """Raises ConfigError where a result would lie among what it is made of, or take its place."""
    place = output.resolve()
    for source in sources:
        found = source.resolve()
        if place == found or found in place.parents:
            raise ConfigError(f"--output {output}: lies in {source}, which is read; give a folder elsewhere")
        if any(place / name in (found, *found.parents) for name in REPLACED):
            raise ConfigError(f"--output {output}: {source} would be replaced by a result; give another folder")


def check_record(output: Path, asked: Mapping[str, Any], resume: bool, force: bool) -> None:
    """Raises ConfigError where a folder holds a training that nobody speaks of, and where other options began it."""
    there = read_record(output).get("asked")
    if there is None:
        if resume:
            raise ConfigError(f"--resume: {output} holds no training; leave the option out to begin one")
        foreign = [name for name in REPLACED if (output / name).exists()]
        if foreign:
            raise ConfigError(
                f"{output} holds {foreign[0]}, which no training wrote and which would be replaced; give another "
                "--output"
            )
        return
    if not (resume or force):
        raise ConfigError(
            f"{output} holds a training; --resume goes on with it, --force begins anew; or give another --output"
        )
    changed = [key for key in asked if resume and there.get(key) != asked[key]]
    if changed:
        raise ConfigError(
            f"--resume: the training in {output} has {changed[0]} {there.get(changed[0])}, now it is "
            f"{asked[changed[0]]}; give the options that it began with"
        )


def begin_record(output: Path, asked: Mapping[str, Any], resume: bool) -> None:
    """Write down what is asked for; without `resume`, remove what an earlier training would go on with."""
    if not resume:
        for place in UNFINISHED:
            shutil.rmtree(output / place, ignore_errors=True)
    output.mkdir(parents=True, exist_ok=True)
    write_record(output, {"asked": asked})


def write_record(output: Path, found: Mapping[str, Any]) -> None:
    """Add to what the folder's record says."""
    record = {**read_record(output), **found}
    write_whole(output / RECORD, orjson.dumps(record, option=orjson.OPT_INDENT_2) + b"\n")


def read_record(output: Path) -> dict[str, Any]:
    """Return what the folder's record says; nothing where there is none."""
    path = output / RECORD
    return dict(read_json(path)) if path.exists() else {}
