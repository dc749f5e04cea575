"""What a training takes from COCO annotations, wherever they lie, and what becomes of boxes that are odd."""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from mar_tools.training.annotated import is_annotated, read_annotated
from mar_tools.training.splitting import split_pictures
from vision_serving.errors import ConfigError

SIZE = (40, 30)  # width, height
CATEGORIES = [{"id": 0, "name": "root"}, {"id": 7, "name": "red"}, {"id": 3, "name": "blue"}]


def draw(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = zlib.crc32(path.name.encode())
    pixels = np.random.default_rng(seed).integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(path)


def annotate(
    file: Path, pictures: Path, boxes: Mapping[str, Sequence[Mapping[str, Any]]], prefix: str = "", **sizes: int
) -> Path:
    """Draw pictures, and write their boxes."""
    images: list[Any] = []
    annotations: list[Any] = []
    for number, (name, own) in enumerate(boxes.items(), start=11):
        draw(pictures / name)
        images.append({"id": number, "file_name": prefix + name, "width": SIZE[0], "height": SIZE[1], **sizes})
        annotations += [{"id": len(annotations) + place, "image_id": number, **box} for place, box in enumerate(own)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES}))
    return file.parent


def box(category: int = 3, bbox: Sequence[float] | None = (4, 5, 10, 8), **more: Any) -> dict[str, Any]:
    return {"category_id": category, "bbox": bbox, **more}


def some(count: int, start: str) -> dict[str, list[dict[str, Any]]]:
    return {f"{start}{number:02}.png": [box(), box(7)] for number in range(count)}


def lay_out_as_roboflow(folder: Path) -> None:
    for part, count in (("train", 6), ("valid", 3), ("test", 2)):
        annotate(folder / part / "_annotations.coco.json", folder / part, some(count, part))


def lay_out_as_coco(folder: Path) -> None:
    for part, count in (("train", 6), ("val", 3), ("test", 2)):
        annotate(folder / "annotations" / f"instances_{part}2017.json", folder / f"{part}2017", some(count, part))


def lay_out_above_images(folder: Path) -> None:
    for part, count in (("train", 6), ("val", 3), ("test", 2)):
        annotate(folder / f"instances_{part}.json", folder / "images" / part, some(count, part))


@pytest.mark.parametrize("lay_out", [lay_out_as_roboflow, lay_out_as_coco, lay_out_above_images])
def test_parts_are_those_of_the_folder(lay_out: Any, tmp_path: Path) -> None:
    lay_out(tmp_path)
    found = read_annotated(tmp_path)
    assert list(found.labels) == ["blue", "red"]
    split = split_pictures(found, tmp_path / "split.csv", seed=0)
    assert {part: len(pictures) for part, pictures in split.items()} == {"train": 6, "validation": 3, "test": 2}


@pytest.mark.parametrize(("place", "prefix"), [("", ""), ("images", ""), ("images", "images/"), ("data", "old/path/")])
def test_pictures_are_found_beside_the_annotations_or_below(place: str, prefix: str, tmp_path: Path) -> None:
    annotate(tmp_path / "annotations.json", tmp_path / place, some(20, "p"), prefix)
    found = read_annotated(tmp_path)
    assert len(found.pictures) == 20
    assert found.pictures[0].boxes[0].xyxy == (4, 5, 14, 13)
    split = split_pictures(found, tmp_path / "split.csv", seed=0)
    assert {part: len(pictures) for part, pictures in split.items()} == {"train": 14, "validation": 3, "test": 3}


@pytest.mark.parametrize(
    ("odd", "kept", "told"),
    [
        (box(bbox=(5, 5, 0, 8)), 1, "1 boxes of less than a pixel in their picture, left out"),
        (box(bbox=(50, 5, 10, 8)), 1, "1 boxes of less than a pixel in their picture, left out"),
        (box(bbox=(30, 20, 20, 20)), 2, "1 boxes reach beyond their picture, and are cut at its edge"),
        (box(iscrowd=1), 2, "1 boxes are crowds, which do not train and do not count"),
        (box(bbox=None), 1, "1 annotations without a box, left out"),
        (box(category=99), 1, "1 annotations of images or categories that the file does not name, left out"),
    ],
    ids=["no width", "outside", "half outside", "crowd", "no box", "unknown category"],
)
def test_odd_boxes_are_told(
    odd: dict[str, Any], kept: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotate(tmp_path / "annotations.json", tmp_path, {"a.png": [box(), odd], "b.png": [box(7)]})
    boxes = read_annotated(tmp_path).pictures[0].boxes
    assert len(boxes) == kept
    assert all(x1 >= 0 and y1 >= 0 and x2 <= SIZE[0] and y2 <= SIZE[1] for x1, y1, x2, y2 in (b.xyxy for b in boxes))
    assert told in capsys.readouterr().err.splitlines()


def test_pictures_without_boxes_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotate(tmp_path / "annotations.json", tmp_path, {**some(12, "p"), "e1.png": [], "e2.png": [], "e3.png": []})
    found = read_annotated(tmp_path)
    assert sum(not picture.boxes for picture in found.pictures) == 3
    assert "3 pictures without a box" in capsys.readouterr().err
    split = split_pictures(found, tmp_path / "split.csv", seed=0)
    assert [sum(not picture.boxes for picture in pictures) for pictures in split.values()] == [1, 1, 1]


def test_a_picture_that_was_turned_since_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotate(tmp_path / "annotations.json", tmp_path, {"a.png": [box()]}, width=SIZE[1], height=SIZE[0])
    found = read_annotated(tmp_path)
    assert found.pictures == []
    assert "it has 40 x 30 pixels, its annotation says 30 x 40" in next(iter(found.left_out.values()))
    assert "1 pictures of another size than their annotations say" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: None, "no annotations; expected annotations.json"),
        (lambda folder: (folder / "annotations.json").write_text("[]"), "expected a COCO file"),
        (lambda folder: (folder / "annotations.json").write_text('{"images": []}'), "missing key 'annotations'"),
        (lambda folder: annotate(folder / "annotations.json", folder, {"a.png": []}), "no annotation has a box"),
    ],
)
def test_what_has_no_boxes_is_refused(write: Any, message: str, tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(ConfigError, match=message):
        read_annotated(tmp_path)


def test_annotations_of_other_pictures_are_refused(tmp_path: Path) -> None:
    annotate(tmp_path / "annotations.json", tmp_path / "elsewhere", some(3, "p"))
    for path in (tmp_path / "elsewhere").iterdir():
        path.rename(path.with_name(f"other_{path.name}"))
    with pytest.raises(ConfigError, match=r"none of its 3 pictures is in .*: p00.png"):
        read_annotated(tmp_path)


def test_folders_of_classes_have_no_annotations(tmp_path: Path) -> None:
    draw(tmp_path / "red" / "a.png")
    assert not is_annotated(tmp_path)
    assert not is_annotated(tmp_path / "nothing")


def test_a_picture_of_several_files_has_the_boxes_of_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = tmp_path / "images"
    annotate(tmp_path / "instances_blue.json", pictures, {"a.png": [box()], "b.png": [box()]})
    annotate(tmp_path / "instances_red.json", pictures, {"a.png": [box(7), box()], "c.png": []})
    found = {picture.path.name: picture for picture in read_annotated(tmp_path).pictures}
    assert {name: [each.class_id for each in picture.boxes] for name, picture in found.items()} == {
        "a.png": [0, 1],
        "b.png": [0],
        "c.png": [],
    }
    assert "1 pictures are annotated several times, and have the boxes of all" in capsys.readouterr().err


def test_a_picture_is_the_one_where_its_file_says(tmp_path: Path) -> None:
    annotate(tmp_path / "annotations.json", tmp_path, some(3, "p"))
    draw(tmp_path / "copies" / "p00.png")
    assert [picture.path.parent for picture in read_annotated(tmp_path).pictures] == [tmp_path] * 3
