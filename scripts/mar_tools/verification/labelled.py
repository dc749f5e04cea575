"""The images of a verification, and what is known to be in them: class folders, or boxes in a COCO file."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor

from mar_tools.images import choose_images, find_images, spread_evenly
from mar_tools.models.recipes import VerificationRecipe
from mar_tools.verification.coco_files import CocoCategory, CocoImage
from vision_serving.errors import ConfigError
from vision_serving.validation import parse_config, read_json

UNLABELLED_COUNT = 16
LABELLED_COUNT = 1000  # a candidate has minutes, and the slow ones answer few images a second
NAMED = 5  # how many offenders a message names

# Of one image: `class_id` (), or `boxes` (M, 4) xyxy in pixels of the image, `labels` (M,) class ids, `iscrowd` (M,).
Truth = Mapping[str, Tensor]


@dataclass(frozen=True)
class VerificationImages:
    """`truth`: one per path, None where nothing is known."""

    paths: tuple[Path, ...]
    truth: tuple[Truth, ...] | None = None


def read_verification_images(verification: VerificationRecipe, labels: Sequence[str]) -> VerificationImages:
    """Read images. Raises ConfigError where they are missing or their truth does not fit the model's labels."""
    images = verification.images
    if verification.annotations is not None and images is not None:
        return read_coco(images, verification.annotations, labels, verification.count or LABELLED_COUNT)
    if verification.labels is not None and images is not None:
        names_file = None if verification.labels == "folders" else verification.labels
        names = name_classes(labels, names_file) if labels else name_folders(images)
        return read_class_folders(images, names, verification.count or LABELLED_COUNT)
    return VerificationImages(tuple(choose_images(images, verification.count or UNLABELLED_COUNT, "verification")))


def name_classes(labels: Sequence[str], names_file: Path | None) -> dict[str, int]:
    """Return what a folder may be called -> class id.

    The class id, a label that no other class has, or a name of the file.

    names_file: {"folder": "label or class id"}, or TorchServe's index_to_name.json: {"0": ["n01440764", "tench"]}.
    """
    names = {str(class_id): class_id for class_id in range(len(labels))}
    counts = Counter(labels)
    names.update({label: class_id for class_id, label in enumerate(labels) if counts[label] == 1})
    if names_file is None:
        return names
    own = {}
    for key, value in read_json_object(names_file).items():
        folder, class_name = (value[0], key) if isinstance(value, list) and value else (key, str(value))
        if class_name not in names:
            raise ConfigError(f"{names_file}: {class_name!r} is neither a label of this model nor a class id")
        own[str(folder)] = names[class_name]
    return {**names, **own}


def name_folders(images: Path) -> dict[str, int]:
    """Return the folders of a model without labels, which gives embeddings: each is a class of its own."""
    folders = sorted(entry.name for entry in images.iterdir() if entry.is_dir())
    return {folder: class_id for class_id, folder in enumerate(folders)}


def read_json_object(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def read_class_folders(folder: Path, class_ids: Mapping[str, int], count: int | None) -> VerificationImages:
    """Read images in folders named after classes. class_ids: what a folder may be called -> class id."""
    paths = find_images(folder)
    folders = [path.relative_to(folder).parts[0] if path != folder else path.name for path in paths]
    unknown = sorted(set(folders) - class_ids.keys())
    if unknown:
        raise ConfigError(
            f"{folder}: {len(unknown)} of {len(set(folders))} entries are no label or class id of this model: "
            f"{_some(unknown)}; expected folders such as {_some(list(class_ids)[-NAMED:])}; other names, such as "
            "WordNet ids, need `labels: FILE` under `verification`, a JSON object {folder: label}"
        )
    chosen = spread_evenly(range(len(paths)), count)
    truth = tuple({"class_id": torch.tensor(class_ids[folders[index]])} for index in chosen)
    return VerificationImages(tuple(paths[index] for index in chosen), truth)


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
