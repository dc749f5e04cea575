"""Detections as a COCO results file: a list of {"image_id", "category_id", "bbox": [x, y, width, height], "score"}."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mar_tools.images import show_name
from mar_tools.predicting.predictors import list_ends
from mar_tools.predicting.rows import Answer, has_failed
from mar_tools.verification.coco_files import CocoCategory, CocoImage
from vision_serving.errors import ConfigError
from vision_serving.validation import parse_config, read_json


@dataclass(frozen=True)
class CocoIds:
    """image_ids: of each file. category_ids: of each label; the class ids where it is None."""

    image_ids: Mapping[Path | str, int]
    category_ids: Mapping[str, int] | None = None


class CocoImages(BaseModel):
    """The part of a COCO annotation file that results refer to."""

    images: list[CocoImage]
    categories: list[CocoCategory]


def images_file_of(output: Path) -> Path:
    """Return where the list of images goes whose ids are our own."""
    return output.with_suffix(".images.json")


def number_images(files: Sequence[Path | str]) -> CocoIds:
    """Number them from 1 on, in order."""
    return CocoIds({file: number for number, file in enumerate(files, 1)})


def match_images(files: Sequence[Path | str], annotations: Path) -> CocoIds:
    """Return the ids of an annotation file, where a `file_name` is the end of a file's path. Raises ConfigError."""
    document = parse_config(CocoImages, read_json(annotations), str(annotations))
    known = {image.file_name: image.id for image in document.images}
    image_ids = {file: known.get(_find_name(file, known)) for file in files}
    absent = [show_name(file) for file, image_id in image_ids.items() if image_id is None]
    if absent:
        raise ConfigError(f"{annotations}: {len(absent)} of {len(files)} files are not in its images: {absent[0]}")
    found = {file: image_id for file, image_id in image_ids.items() if image_id is not None}
    return CocoIds(found, {category.name: category.id for category in document.categories})


def _find_name(file: Path | str, known: Mapping[str, int]) -> str:
    """Return the longest end of the path that is known; empty where none is."""
    return next((end for end in map(show_name, reversed(list_ends(file))) if end in known), "")


def to_results(file: Path | str, answer: Answer, ids: CocoIds) -> Iterable[dict[str, Any]]:
    """Return one for each box; none of an error. Raises ConfigError where there can be none."""
    if has_failed(answer):
        return []
    if "detections" not in answer:
        raise ConfigError("COCO results are for detectors; this model gives no boxes")
    return [_to_result(detection, ids.image_ids[file], ids.category_ids) for detection in answer["detections"]]


def _to_result(detection: Mapping[str, Any], image_id: int, category_ids: Mapping[str, int] | None) -> dict[str, Any]:
    label = detection["label"]
    if category_ids is not None and label not in category_ids:
        raise ConfigError(f"{label!r} is not a category of the annotations; they have {sorted(category_ids)[:10]}")
    x1, y1, x2, y2 = detection["box"]
    return {
        "image_id": image_id,
        "category_id": detection["class_id"] if category_ids is None else category_ids[label],
        "bbox": [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
        "score": detection["score"],
        **_find_outline(detection),
    }


def _find_outline(detection: Mapping[str, Any]) -> dict[str, Any]:
    """Return what COCO has of an object beyond its box: its mask, or a turned box as a polygon."""
    if detection.get("mask"):
        return {"segmentation": detection["mask"]}
    return {"segmentation": [detection["corners"]]} if "corners" in detection else {}


def make_annotation_file(answers: Iterable[tuple[Path | str, Answer]], ids: CocoIds) -> dict[str, Any]:
    """Return the images and the categories that were found, in the form of an annotation file."""
    images, names = [], {}
    for file, answer in answers:
        images.append({"id": ids.image_ids[file], "file_name": show_name(file), **answer.get("image", {})})
        names.update({detection["class_id"]: detection["label"] for detection in answer.get("detections", [])})
    categories = [{"id": class_id, "name": name} for class_id, name in sorted(names.items())]
    return {"images": images, "categories": categories, "annotations": []}
