"""What lies in a folder of pictures to train on: a folder for each class, perhaps divided into parts already."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from mar_tools.images import find_images, read_image, show_line
from mar_tools.terminal import print_line, show_items
from vision_serving.config import ImageLimits
from vision_serving.cores import usable_cores
from vision_serving.errors import ConfigError, RequestError
from vision_serving.pictures.decoding import decode_image

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
# What a folder of a part may be called.
PART_NAMES: Mapping[str, Part] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
    "heldout": "test",
}
NAMED = 5  # how many offenders a message names


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture that can be read. digest: SHA-256 of its bytes. part: the one that the folder gives it, if it does."""

    path: Path
    digest: str
    part: Part | None = None


@dataclass(frozen=True, kw_only=True)
class LabelledPicture(Picture):
    """One picture and its class."""

    class_id: int


@dataclass(frozen=True)
class PictureFolder:
    """The pictures that can be read, and the classes' names. left_out: those that cannot, with the reason."""

    pictures: Sequence[LabelledPicture]
    labels: Sequence[str]
    left_out: Mapping[Path, str]

    def groups(self) -> list[set[str]]:
        """Return digests of pictures, of each group of which every part gets its share: the classes."""
        found: dict[int, set[str]] = {}
        for picture in self.pictures:
            found.setdefault(picture.class_id, set()).add(picture.digest)
        return [found[class_id] for class_id in sorted(found)]

    def check_part(self, part: Part, pictures: Sequence[LabelledPicture]) -> None:
        """Raises ConfigError where a class has no picture for a part."""
        there = {picture.class_id for picture in pictures}
        missing = [show_line(label) for class_id, label in enumerate(self.labels) if class_id not in there]
        if missing:
            raise ConfigError(
                f"{len(missing)} of {len(self.labels)} classes have no picture for the part {part!r}: "
                f"{', '.join(missing[:NAMED])}; each class needs different pictures for {', '.join(PARTS)}"
            )


def find_parts(entries: Iterable[Path]) -> dict[Path, Part]:
    """Return those that are called as a part, and which one."""
    return {entry: PART_NAMES[name] for entry in entries if (name := entry.name.lower()) in PART_NAMES}


def read_class_folders(folder: Path) -> PictureFolder:
    """Read `CLASS/*` below a folder, or `train/CLASS/*` and other parts beside it; each picture is decoded once.

    Classes are in the order of their names, as torchvision's ImageFolder has them. Raises ConfigError where there are
    no two of them.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; expected one with a folder of pictures for each class")
    entries = _find_folders(folder)
    parts = find_parts(entries)
    if parts and len(parts) < len(entries):
        other = next(entry.name for entry in entries if entry not in parts)
        names = ", ".join(entry.name for entry in parts)
        raise ConfigError(f"{folder}: it has parts ({names}) and {other!r}; expected folders of parts or of classes")
    places: list[tuple[Part | None, Path]] = [(None, entry) for entry in entries]
    if parts:
        places = [(part, entry) for place, part in parts.items() for entry in _find_folders(place)]
    labels = sorted({entry.name for _, entry in places})
    if len(labels) < 2:
        raise ConfigError(
            f"{folder}: {len(labels)} folders of classes; expected two or more, each with the pictures of its class"
        )
    _check_names(folder, labels)
    found = [(path, labels.index(entry.name), part) for part, entry in places for path in find_images(entry)]
    return _read(found, labels)


def _find_folders(place: Path) -> list[Path]:
    """Return the folders in a folder, but for hidden ones, as notebooks leave them."""
    return sorted(entry for entry in place.iterdir() if entry.is_dir() and entry.name[0] != ".")


def _check_names(folder: Path, labels: Sequence[str]) -> None:
    """Raises ConfigError for a class that no label file could name: writing it would fail when all is trained."""
    unnamed = [label for label in labels if label.encode(errors="ignore").decode() != label]
    if unnamed:
        raise ConfigError(
            f"{folder}: the folder {show_line(unnamed[0])} has a name that is no UTF-8; rename it: classes are called "
            "as their folders"
        )


def _read(found: Sequence[tuple[Path, int, Part | None]], labels: Sequence[str]) -> PictureFolder:
    seen, left_out = look_at([path for path, _, _ in found])
    pictures = [
        LabelledPicture(path=path, class_id=class_id, digest=seen[path].digest, part=part)
        for path, class_id, part in found
        if path in seen
    ]
    _tell_contradictions(pictures, labels)
    return PictureFolder(pictures, labels, left_out)


@dataclass(frozen=True)
class Look:
    """What a picture is: SHA-256 of its bytes, and its size as it is shown, upright."""

    digest: str
    size_hw: tuple[int, int]


def look_at(paths: Sequence[Path]) -> tuple[dict[Path, Look], dict[Path, str]]:
    """Decode each picture, for a broken one must not end a training hours later; return those, and what is wrong."""
    seen: dict[Path, Look] = {}
    left_out: dict[Path, str] = {}
    with ThreadPoolExecutor(usable_cores()) as threads:
        looks = threads.map(_look, paths)
        for path, (look, problem) in show_items(zip(paths, looks, strict=True), "reading pictures", len(paths)):
            if look is None:
                left_out[path] = problem
            else:
                seen[path] = look
    _tell_left_out(left_out)
    return seen, left_out


def _look(path: Path) -> tuple[Look | None, str]:
    try:
        encoded = read_image(path)
        height, width = decode_image(encoded, ImageLimits()).shape[:2]
    except (RequestError, OSError) as error:
        return None, str(error)
    return Look(hashlib.sha256(encoded).hexdigest(), (height, width)), ""


def _tell_left_out(left_out: Mapping[Path, str]) -> None:
    if left_out:
        path, problem = next(iter(left_out.items()))
        print_line(f"left out: {len(left_out)} files that are no pictures, such as {show_line(path)}: {problem}")


def _tell_contradictions(pictures: Iterable[LabelledPicture], labels: Sequence[str]) -> None:
    classes: dict[str, set[int]] = {}
    for picture in pictures:
        classes.setdefault(picture.digest, set()).add(picture.class_id)
    contradicting = {digest: ids for digest, ids in classes.items() if len(ids) > 1}
    if contradicting:
        digest, ids = next(iter(contradicting.items()))
        path = next(picture.path for picture in pictures if picture.digest == digest)
        names = " and ".join(show_line(labels[class_id]) for class_id in sorted(ids))
        print_line(f"{len(contradicting)} pictures lie in several classes, such as {show_line(path)}: {names}")
