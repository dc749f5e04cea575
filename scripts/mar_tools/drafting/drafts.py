"""A recipe that is being written: each value with the reason for it, and what nobody could know."""

import ast
import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml

from mar_tools.models.label_files import read_labels_file
from mar_tools.models.normalisations import NORMALISATIONS, write_normalisation
from vision_serving.errors import ConfigError
from vision_serving.options import Task

Recipe = Mapping[str, Any]
SUFFIXES = r"(\.(pth|tar|gz|tgz|pt|ckpt|bin|onnx|safetensors|torchscript|mar))+$"
IMAGENET = write_normalisation(*NORMALISATIONS["ImageNet's mean and std"])
LABELS, NAMES_UNKNOWN = ".labels.json", "the names of the classes"
UNSCALED = write_normalisation(*NORMALISATIONS["mean 0 and std 1"])

PADDING = (
    "where its own program lays a picture that is not as wide as high: `letterbox` centres it on gray, as training "
    "does. Programs that begin at the top left need `pad_place: top_left` under `resize`"
)


@dataclass(frozen=True)
class Noted:
    """A value of a recipe, and where it comes from: the comment of its line."""

    value: Any
    why: str


def assume(value: Any, why: str) -> Noted:
    return Noted(value, f"assumed: {why}")


@dataclass(frozen=True)
class Hint:
    """A family of programs, as `--like` names it. why: when its conventions fit."""

    like: str
    why: str

    def __str__(self) -> str:
        return f"{self.why}: --like {self.like}"


@dataclass(frozen=True)
class Hints:
    """What the user says: the name of the model, its task, a file of labels, pictures that it knows."""

    name: str | None = None
    task: Task | None = None
    labels: Path | None = None
    images: Path | None = None
    architecture: str | None = None


@dataclass(frozen=True)
class Draft:
    """recipe: paths in it are Path values. files: written beside it, by name. notes: what could not be known.

    hints: families of programs whose conventions may fit. is_unpacked: its files come out of an archive.
    """

    recipe: Recipe
    files: Mapping[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    hints: tuple[Hint, ...] = ()
    is_unpacked: bool = False

    @property
    def name(self) -> str:
        return str(without_notes(self.recipe["name"]))


def name_of(path: Path, hints: Hints) -> str:
    """Return a name for a model: its file's, with what a name may not have replaced."""
    stem = re.sub(SUFFIXES, "", path.name, flags=re.IGNORECASE)
    return hints.name or re.sub(r"[^A-Za-z0-9_.-]", "_", stem).lstrip("_.-") or "model"


@dataclass(frozen=True)
class Labels:
    """The `labels` of a recipe, the files that it needs, and what is not known of it."""

    value: Any
    files: Mapping[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def choose_labels(name: str, hints: Hints, names: list[str] | None, count: int | None, where: str) -> Labels:
    """Return the user's file, the names that the file states, else a file of numbers to be written over.

    Raises ConfigError where the user's file has another number of names than there are classes.
    """
    file = name + LABELS
    if hints.labels is not None:
        given = len(read_labels_file(hints.labels))
        if count is not None and given != count:
            raise ConfigError(f"--labels {hints.labels}: it has {given} names, and the model {count} classes")
        return Labels(hints.labels.absolute())
    if names is not None:
        return Labels(Noted(file, f"{len(names)} classes, {where}"), {file: _json(names)})
    numbers = [f"class {number}" for number in range(count or 2)]
    told = f"{count} classes" if count else "two classes, as their number is not in the file either"
    note = f"{NAMES_UNKNOWN}: {file} has placeholders for {told}; write the names, in the order of training"
    return Labels(assume(file, "placeholders; write the names there"), {file: _json(numbers)}, (note,))


def read_names(text: str) -> list[str] | None:
    """Return names of classes: of `{0: 'person', 1: ...}` or a list, in Python or JSON, or lines; None for others."""
    names: Any = text.splitlines()
    with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
        names = ast.literal_eval(text.strip())
    if isinstance(names, dict):
        numbers = {int(key): name for key, name in names.items() if str(key).isdecimal()}
        names = [numbers[number] for number in range(len(names))] if numbers.keys() == set(range(len(names))) else None
    return [str(name) for name in names] if isinstance(names, list | tuple) and names else None


def _json(values: list[str]) -> bytes:
    return orjson.dumps(values, option=orjson.OPT_INDENT_2) + b"\n"


def write_draft(draft: Draft, recipe: Path, title: str, force: bool) -> None:
    """Write a recipe and its files. Raises ConfigError where one of them is there already, before any is written."""
    contents = {recipe: render(draft.recipe, recipe.parent, title).encode()}
    contents |= {recipe.parent / name: content for name, content in draft.files.items()}
    there = [path for path, content in contents.items() if path.exists() and path.read_bytes() != content]
    if there and not force:
        raise ConfigError(f"{there[0]} is there already; give --force to write over it, or another --output")
    for path, content in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def render(recipe: Recipe, folder: Path, title: str) -> str:
    """Return the yaml of a recipe that lies in `folder`, with its comments."""
    lines = [f"# {title}", "# Lines that say `assumed` are not in the file: check them.", *_lines(recipe, folder, "")]
    return "\n".join(lines) + "\n"


def _lines(values: Recipe, folder: Path, indent: str) -> Iterator[str]:
    for key, entry in values.items():
        value, comment = (entry.value, f"  # {entry.why}") if isinstance(entry, Noted) else (entry, "")
        if isinstance(value, Mapping) and value and not _is_short(value):
            yield f"{indent}{key}:{comment}"
            yield from _lines(value, folder, indent + "  ")
        else:
            yield f"{indent}{key}: {_flow(_relative(value, folder))}{comment}"


def _is_short(values: Recipe) -> bool:
    """Return whether it is written in one line: nothing in it has a comment, or is a mapping."""
    return not any(isinstance(value, Noted | Mapping | Path) for value in values.values())


def _relative(value: Any, folder: Path) -> Any:
    return os.path.relpath(value, folder.absolute()) if isinstance(value, Path) else value


def _flow(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def without_notes(value: Any) -> Any:
    """Return a value of a recipe as a reader of its yaml finds it."""
    if isinstance(value, Noted):
        return without_notes(value.value)
    return {key: without_notes(entry) for key, entry in value.items()} if isinstance(value, Mapping) else value
