"""What lies in a folder of pictures to train on: a folder for each class, perhaps divided into parts already."""

import hashlib
from collections import Counter
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


@dataclass(frozen=True)
class LabelledPicture:
    """One picture and its class. digest: SHA-256 of its bytes. part: the one that the folder gives it, if it does."""

    path: Path
    class_id: int
    digest: str
    part: Part | None = None


@dataclass(frozen=True)
class PictureFolder:
    """The pictures that can be read, and the classes' names. left_out: those that cannot, with the reason."""

    pictures: Sequence[LabelledPicture]
    labels: Sequence[str]
    left_out: Mapping[Path, str]


def read_class_folders(folder: Path) -> PictureFolder:
    """Read `CLASS/*` below a folder, or `train/CLASS/*` and other parts beside it; each picture is decoded once.

    Classes are in the order of their names, as torchvision's ImageFolder has them. Raises ConfigError where there are
    no two of them.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; expected one with a folder of pictures for each class")
    entries = sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")
    parts = {entry: PART_NAMES[entry.name.lower()] for entry in entries if entry.name.lower() in PART_NAMES}
    if parts and len(parts) < len(entries):
        other = next(entry.name for entry in entries if entry not in parts)
        names = ", ".join(entry.name for entry in parts)
        raise ConfigError(f"{folder}: it has parts ({names}) and {other!r}; expected folders of parts or of classes")
    places: list[tuple[Part | None, Path]] = [(None, entry) for entry in entries]
    if parts:
        places = [(part, entry) for place, part in parts.items() for entry in sorted(place.iterdir()) if entry.is_dir()]
    labels = sorted({entry.name for _, entry in places})
    if len(labels) < 2:
        raise ConfigError(
            f"{folder}: {len(labels)} folders of classes; expected two or more, each with the pictures of its class"
        )
    found = [(path, labels.index(entry.name), part) for part, entry in places for path in find_images(entry)]
    return _read(found, labels)


def _read(found: Sequence[tuple[Path, int, Part | None]], labels: Sequence[str]) -> PictureFolder:
    """Decode each picture, for a broken one must not end a training hours later."""
    pictures, left_out = [], {}
    with ThreadPoolExecutor(usable_cores()) as threads:
        digests = threads.map(_digest, (path for path, _, _ in found))
        shown = show_items(zip(found, digests, strict=True), "reading pictures", len(found))
        for (path, class_id, part), (digest, problem) in shown:
            if problem:
                left_out[path] = problem
            else:
                pictures.append(LabelledPicture(path, class_id, digest, part))
    _tell_left_out(left_out)
    _tell_contradictions(pictures, labels)
    return PictureFolder(pictures, labels, left_out)


def _digest(path: Path) -> tuple[str, str]:
    """Return the SHA-256 of a picture's bytes, and what is wrong with it."""
    try:
        encoded = read_image(path)
        decode_image(encoded, ImageLimits())
    except (RequestError, OSError) as error:
        return "", str(error)
    return hashlib.sha256(encoded).hexdigest(), ""


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


def count_classes(pictures: Iterable[LabelledPicture], labels: Sequence[str]) -> dict[str, int]:
    """Return how many pictures each class has."""
    counts = Counter(picture.class_id for picture in pictures)
    return {label: counts[class_id] for class_id, label in enumerate(labels)}
