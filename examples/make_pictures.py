"""Draw the pictures that the digit recipes are calibrated and verified on.

From the repository's root:

    python examples/make_pictures.py

heldout/ in both examples comes from digits that training never saw: digits_classification/heldout/<label>/*.jpg,
and digits_detection/heldout/ with its boxes in annotations.json, a COCO file. calibration/, for the ranges of
int8, comes from the digits of the training.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from examples.digits import LABELS, Digits, load_digit_split
from examples.digits_classification.images import draw_picture, resize_and_crop
from examples.digits_detection.scenes import Scene, draw_scene

FOLDER = Path(__file__).resolve().parent
SEED = 2_000_003  # far from the seeds of train.py: none of its pictures is drawn again
CALIBRATION_SEED = 3_000_017
PICTURES = 200
SCENES = 40
CALIBRATION_PICTURES = 64
CALIBRATION_SCENES = 24
QUALITY = 88


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=FOLDER, help="default: examples/")
    arguments = parser.parse_args()
    training_digits, test_digits = load_digit_split()
    classification, detection = (arguments.output / f"digits_{task}" for task in ("classification", "detection"))
    write_pictures(empty_folder(classification / "heldout"), test_digits)
    write_scenes(empty_folder(detection / "heldout"), test_digits)
    write_calibration(empty_folder(classification / "calibration"), CALIBRATION_PICTURES, training_digits, new_picture)
    write_calibration(empty_folder(detection / "calibration"), CALIBRATION_SCENES, training_digits, new_scene)


def empty_folder(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def new_picture(digits: Digits, number: int, seed: int) -> Image:
    """As large as the classifier sees it."""
    return resize_and_crop(draw_picture(digits.masters[number], np.random.default_rng([seed, number])))


def new_scene(digits: Digits, number: int, seed: int) -> Image:
    return draw_scene(digits, np.random.default_rng([seed, number])).image


def write_calibration(folder: Path, count: int, digits: Digits, draw: Callable[[Digits, int, int], Image]) -> None:
    for number in range(count):
        draw(digits, number, CALIBRATION_SEED).save(folder / f"{number:03d}.jpg", quality=QUALITY)


def write_pictures(folder: Path, digits: Digits) -> None:
    """One picture of each of the first PICTURES digits, in its label's folder."""
    for number in range(PICTURES):
        label_folder = folder / LABELS[digits.class_ids[number]]
        label_folder.mkdir(exist_ok=True)
        picture = new_picture(digits, number, SEED)
        picture.save(label_folder / f"{number:03d}.jpg", quality=QUALITY)


def write_scenes(folder: Path, digits: Digits) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(SCENES):
        scene = draw_scene(digits, np.random.default_rng([SEED, number]))
        name = f"scene_{number:02d}.jpg"
        scene.image.save(folder / name, quality=QUALITY)
        images.append({"id": number, "file_name": name, "width": scene.image.width, "height": scene.image.height})
        annotations += describe_boxes(scene, number, first_id=len(annotations) + 1)
    categories = [{"id": class_id, "name": label} for class_id, label in enumerate(LABELS)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(document) + "\n", encoding="utf-8")


def describe_boxes(scene: Scene, image_id: int, first_id: int) -> list[dict[str, Any]]:
    return [
        {
            "id": first_id + index,
            "image_id": image_id,
            "category_id": class_id,
            "bbox": [left, top, right - left, bottom - top],
            "area": (right - left) * (bottom - top),
            "iscrowd": 0,
        }
        for index, (class_id, (left, top, right, bottom)) in enumerate(
            zip(scene.class_ids.tolist(), scene.boxes_xyxy.astype(int).tolist(), strict=True)
        )
    ]


if __name__ == "__main__":
    main()
