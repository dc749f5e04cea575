"""The images of a verification, and what is known to be in them: classes, or boxes in a COCO file."""

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel
from torch import Tensor

from mar_tools.images import choose_images, find_images, spread_evenly
from mar_tools.models.recipes import VerificationRecipe
from mar_tools.verification.coco_files import CocoCategory, CocoImage
from mar_tools.verification.picture_labels import read_picture_labels
from vision_serving.config import HandlerConfig
from vision_serving.errors import ConfigError
from vision_serving.validation import parse_config, read_json

UNLABELLED_COUNT = 16
LABELLED_COUNT = 1000  # a candidate has minutes, and the slow ones answer few images a second
NAMED = 5  # how many offenders a message names

# Of one image: `class_ids` (K,), of which any is right, and with independent scores all; or `boxes` (M, 4) xyxy in
# pixels of the image, `labels` (M,) class ids, `iscrowd` (M,).
Truth = Mapping[str, Tensor]
ClassIds = Mapping[str, tuple[int, ...]]  # what a class may be called


@dataclass(frozen=True)
class VerificationImages:
    """`truth`: one per path, None where nothing is known."""

    paths: tuple[Path, ...]
    truth: tuple[Truth, ...] | None = None


def read_verification_images(
    verification: VerificationRecipe, config: HandlerConfig, labels: Sequence[str]
) -> VerificationImages:
    """Read images. Raises ConfigError where they are missing or their truth does not fit the model and its labels."""
    images = verification.images
    if verification.annotations is not None and images is not None:
        return read_coco(images, verification.annotations, labels, verification.count or LABELLED_COUNT)
    if verification.labels is not None and images is not None:
        return read_labelled(images, verification.labels, config, labels, verification.count or LABELLED_COUNT)
    return VerificationImages(tuple(choose_images(images, verification.count or UNLABELLED_COUNT, "verification")))


def read_labelled(
    images: Path, given: Path | Literal["folders"], config: HandlerConfig, labels: Sequence[str], count: int
) -> VerificationImages:
    """Read images with classes. given: `labels` of the recipe."""
    names = name_classes(labels) if labels else name_folders(images)
    if given == "folders":
        return read_class_folders(images, names, count)
    if not labels:
        raise ConfigError(f"{given}: a model without labels takes `labels: folders`, each of which is a class")
    independent = config.activation == "sigmoid"
    if independent or given.suffix.lower() != ".json":
        return read_listed(images, given, names, count, independent=independent)
    return read_class_folders(images, {**names, **read_folder_names(given, names)}, count)


def name_classes(labels: Sequence[str]) -> ClassIds:
    """Return what a class may be called -> its class ids: the id, or a label, which means all classes that have it."""
    names: dict[str, tuple[int, ...]] = {str(class_id): (class_id,) for class_id in range(len(labels))}
    own: dict[str, tuple[int, ...]] = {}
    for class_id, label in enumerate(labels):
        own[label] = (*own.get(label, ()), class_id)
    return {**names, **own}


def read_folder_names(path: Path, names: ClassIds) -> ClassIds:
    """Read what folders are called otherwise.

    path: {"folder": "label or class id"}, or TorchServe's index_to_name.json: {"0": ["n01440764", "tench"]}.
    """
    own = {}
    for key, value in read_json_object(path, ' {"folder": "label"}').items():
        folder, class_name = (value[0], key) if isinstance(value, list) and value else (key, str(value))
        if class_name not in names:
            raise ConfigError(f"{path}: {class_name!r} is neither a label of this model nor a class id")
        own[str(folder)] = names[class_name]
    return own


def name_folders(images: Path) -> ClassIds:
    """Return the folders of a model without labels, which gives embeddings: each is a class of its own."""
    folders = sorted(entry.name for entry in images.iterdir() if entry.is_dir())
    return {folder: (class_id,) for class_id, folder in enumerate(folders)}


def read_json_object(path: Path, example: str = "") -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a JSON object{example}, got {type(content).__name__}")
    return content


def read_class_folders(folder: Path, class_ids: ClassIds, count: int | None) -> VerificationImages:
    """Read images in folders named after classes. class_ids: what a folder, or a picture, may be called."""
    paths = find_images(folder)
    entries = [find_entry(path, folder, class_ids) for path in paths]
    tops = [path.relative_to(folder).parts[0] if path != folder else path.name for path in paths]
    unknown = sorted({top for top, entry in zip(tops, entries, strict=True) if entry is None})
    if unknown:
        raise ConfigError(
            f"{folder}: {len(unknown)} of {len(set(tops))} entries are no label or class id of this model: "
            f"{_some(unknown)}; expected folders such as {_some(list(class_ids)[-NAMED:])}; other names, such as "
            "WordNet ids, need `labels: FILE` under `verification`, a JSON object {folder: label}"
        )
    chosen = spread_evenly(range(len(paths)), count)
    truth = tuple(_classes_of(class_ids[entry]) for index in chosen if (entry := entries[index]) is not None)
    return VerificationImages(tuple(paths[index] for index in chosen), truth)


def read_listed(
    folder: Path, file: Path, names: ClassIds, count: int | None, *, independent: bool
) -> VerificationImages:
    """Read the images that a file lists, by themselves or by their folder. independent: they may show several labels.

    Raises ConfigError also for entries without images.
    """
    shown = read_picture_labels(file, names)
    found = {path: entry for path in find_images(folder) if (entry := find_entry(path, folder, shown)) is not None}
    unused = sorted(shown.keys() - found.values())
    if unused:
        raise ConfigError(
            f"{file}: {len(unused)} of {len(shown)} entries are no picture or folder in {folder}: {_some(unused)}"
        )
    several = sorted(entry for entry, labels in shown.items() if len(set(labels)) != 1)
    if several and not independent:
        raise ConfigError(
            f"{file}: {len(several)} of {len(shown)} entries have no label or several: {_some(several)}; the scores of "
            "this model exclude each other. Of one with several labels an image: `output: {activation: sigmoid}`"
        )
    chosen = spread_evenly(list(found), count)
    truth = tuple(_classes_of(chain(*(names[label] for label in shown[found[path]]))) for path in chosen)
    if not any(len(image["class_ids"]) for image in truth):
        raise ConfigError(f"{file}: the {len(chosen)} images to verify with show no label at all")
    return VerificationImages(tuple(chosen), truth)


def find_entry(path: Path, folder: Path, entries: Container[str]) -> str | None:
    """Return what names an image: itself, itself without suffix, or the nearest of its folders; None for nothing."""
    name = path.relative_to(folder) if path != folder else Path(path.name)
    choices = (name, name.with_suffix(""), *name.parents)
    return next((choice.as_posix() for choice in choices if choice.as_posix() in entries), None)


def _classes_of(class_ids: Iterable[int]) -> Truth:
    return {"class_ids": torch.tensor(sorted(set(class_ids)), dtype=torch.int64)}


class CocoBox(BaseModel):
    """bbox: left, top, width, height in pixels."""

    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    iscrowd: int = 0


class CocoFile(BaseModel):
    """The part of a COCO file that boxes need."""

    images: list[CocoImage]
    annotations: list[CocoBox]
    categories: list[CocoCategory]


def read_coco(folder: Path, annotations: Path, labels: Sequence[str], count: int | None) -> VerificationImages:
    """Read COCO; categories are matched to labels by their names."""
    document = parse_config(CocoFile, read_json_object(annotations), str(annotations))
    if not document.annotations:
        raise ConfigError(f"{annotations}: no boxes in it (`annotations` is empty)")
    class_ids = match_categories(document, labels, annotations)
    boxes: dict[int, list[CocoBox]] = defaultdict(list)
    for box in document.annotations:
        boxes[box.image_id].append(box)
    images = spread_evenly(document.images, count)
    paths = tuple(folder / image.file_name for image in images)
    missing = [path.name for path in paths if not path.is_file()]
    if missing or not paths:
        absent = f"{len(missing)} of its {len(paths)} images are not in {folder}: {_some(missing)}"
        raise ConfigError(f"{annotations}: {absent if paths else 'it has no images'}")
    if all(box.iscrowd for image in images for box in boxes[image.id]):
        raise ConfigError(f"{annotations}: the {len(images)} images to verify with have no boxes; raise `count`")
    return VerificationImages(paths, tuple(_truth_of(boxes[image.id], class_ids) for image in images))


def match_categories(document: CocoFile, labels: Sequence[str], annotations: Path) -> dict[int, int]:
    """Match COCO category id -> class id. Raises ConfigError that names the used categories that are no label."""
    used = {box.category_id for box in document.annotations}
    names = {category.id: category.name for category in document.categories if category.id in used}
    unknown = sorted(name for name in names.values() if name not in labels)
    unknown += [f"category {category_id}" for category_id in sorted(used - names.keys())]
    if unknown:
        raise ConfigError(
            f"{annotations}: {len(unknown)} of {len(used)} categories are no labels of this model: {_some(unknown)}; "
            f"its labels are {_some(labels)}"
        )
    return {category_id: list(labels).index(name) for category_id, name in names.items()}


def _truth_of(boxes: Sequence[CocoBox], class_ids: Mapping[int, int]) -> Truth:
    corners = [(left, top, left + width, top + height) for left, top, width, height in (box.bbox for box in boxes)]
    return {
        "boxes": torch.tensor(corners, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([class_ids[box.category_id] for box in boxes], dtype=torch.int64),
        "iscrowd": torch.tensor([box.iscrowd for box in boxes], dtype=torch.int64),
    }


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(repr, names[:NAMED])) + more
