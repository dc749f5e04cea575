import csv
import io
import json
import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pycocotools import coco

from mar_tools.images import show_name
from mar_tools.predicting.coco_results import CocoIds, match_images, number_images
from mar_tools.predicting.formats import FORMATS, NewWriter, write_coco
from mar_tools.predicting.rows import Answer
from vision_serving.errors import ConfigError

CLASSES = {
    "classes": [{"class_id": 2, "label": 'a "b", c', "score": 0.75}, {"class_id": 0, "label": "0", "score": 0.2}]
}
BOXES = {
    "detections": [
        {"class_id": 1, "label": "cat", "score": 0.9, "box": [1.5, 2.0, 11.75, 22.0]},
        {"class_id": 3, "label": "dog", "score": 0.6, "box": [0.0, 0.0, 5.0, 5.0]},
    ],
    "image": {"width": 64, "height": 48},
}
NOTHING: Answer = {"detections": [], "image": {"width": 64, "height": 48}}
FAILED = {"code": 400, "type": "ImageDecodeError", "message": "not an image"}
A, B, C = Path("folder/a.jpg"), Path("folder/b.jpg"), Path("c.jpg")


def write_all(new_writer: NewWriter, *answers: tuple[Path, Answer]) -> str:
    stream = io.StringIO()
    with new_writer(stream) as write:
        for file, answer in answers:
            write(file, answer)
    return stream.getvalue()


def test_csv_has_a_row_for_each_class_box_and_failure() -> None:
    text = write_all(FORMATS["csv"], (A, BOXES), (B, FAILED), (C, NOTHING), (A, CLASSES))
    assert list(csv.reader(io.StringIO(text))) == [
        ["file", "class_id", "label", "score", "x1", "y1", "x2", "y2", "error"],
        ["folder/a.jpg", "1", "cat", "0.9", "1.5", "2.0", "11.75", "22.0", ""],
        ["folder/a.jpg", "3", "dog", "0.6", "0.0", "0.0", "5.0", "5.0", ""],
        ["folder/b.jpg", "", "", "", "", "", "", "", "400 ImageDecodeError: not an image"],
        ["c.jpg", "", "", "", "", "", "", "", ""],
        ["folder/a.jpg", "2", 'a "b", c', "0.75", "", "", "", "", ""],
        ["folder/a.jpg", "0", "0", "0.2", "", "", "", "", ""],
    ]


def test_json_lines_have_a_line_for_each_file() -> None:
    lines = write_all(FORMATS["json-lines"], (A, BOXES), (B, FAILED)).splitlines()
    assert [json.loads(line) for line in lines] == [{"file": str(A), **BOXES}, {"file": str(B), **FAILED}]


def test_the_table_tells_what_was_found_and_what_failed() -> None:
    text = write_all(FORMATS["table"], (A, BOXES), (B, FAILED), (C, NOTHING))
    for words in ("cat", "0.900", "1.5, 2, 11.75, 22", "400 ImageDecodeError", "nothing found"):
        assert words in text


@pytest.mark.parametrize("name", FORMATS)
def test_what_was_written_stays_when_the_work_is_cut_short(name: str) -> None:
    stream = io.StringIO()
    with suppress(KeyboardInterrupt), FORMATS[name](stream) as write:
        write(A, BOXES)
        raise KeyboardInterrupt
    assert "cat" in stream.getvalue()


# Latin-1, markup of tables, a command to the terminal, a line end, a tag that nothing opened, no text at all.
ODD_NAMES = [
    Path(os.fsdecode(name)) for name in (b"caf\xe9.png", b"[b]x.png", b"\x1b[31m.png", b"a\nb.png", b"[", b"\xff")
]
SHOWN = ["caf\\xe9.png", "[b]x.png", "\\x1b[31m.png", "a\\nb.png", "[", "\\xff"]


@pytest.mark.parametrize("name", [*FORMATS, "coco"])
def test_no_name_of_a_file_ends_a_run(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each name has an answer and an error; what is written is UTF-8."""
    output, listed = tmp_path / "out", tmp_path / "images.json"
    new_writer = FORMATS.get(name) or partial(write_coco, ids=number_images(ODD_NAMES), images_file=listed)
    with output.open("w", encoding="utf-8", newline="") as stream, new_writer(stream) as write:
        for file in ODD_NAMES:
            write(file, BOXES)
            write(file, FAILED)
    text = output.read_bytes().decode()
    if name == "table":
        assert [row.split("  ")[0] for row in text.splitlines() if "cat" in row] == SHOWN
        assert "\x1b" not in text
    elif name == "json-lines":
        assert [json.loads(line)["file"] for line in text.splitlines()][::2] == [show_name(file) for file in ODD_NAMES]
    elif name == "csv":
        found = {row["file"] for row in csv.DictReader(io.StringIO(text, newline=""))}
        assert found == {show_name(file) for file in ODD_NAMES}
    else:
        images = json.loads(listed.read_bytes())["images"]
        assert [image["file_name"] for image in images][::2] == [show_name(file) for file in ODD_NAMES]
        assert "".join(f"{shown}: 400" for shown in SHOWN) in capsys.readouterr().err.replace(
            " ImageDecodeError: not an image\n", ""
        )


@pytest.mark.parametrize("label", ["[/b]", "[red]", ":smile:", "\x1b[2J"])
def test_a_label_is_no_markup(label: str) -> None:
    answer = {"classes": [{"class_id": 0, "label": label, "score": 0.5}]}
    assert label.replace("\x1b", "\\x1b") in write_all(FORMATS["table"], (A, answer))


def test_a_name_that_is_no_text_is_found_again_in_the_list_of_images(tmp_path: Path) -> None:
    listed = tmp_path / "images.json"
    listed.write_text(json.dumps({"images": [{"id": 5, "file_name": "caf\\xe9.png"}], "categories": []}))
    file = tmp_path / ODD_NAMES[0]
    assert match_images([file], listed).image_ids == {file: 5}


IDS = CocoIds({A: 10, B: 20, C: 30})
RESULTS = [
    {"image_id": 10, "category_id": 1, "bbox": [1.5, 2.0, 10.25, 20.0], "score": 0.9},
    {"image_id": 10, "category_id": 3, "bbox": [0.0, 0.0, 5.0, 5.0], "score": 0.6},
]


def test_coco_results_are_boxes_by_left_top_width_and_height(capsys: pytest.CaptureFixture[str]) -> None:
    text = write_all(partial(write_coco, ids=IDS), (A, BOXES), (B, FAILED), (C, NOTHING))
    assert json.loads(text) == RESULTS
    assert capsys.readouterr().err == "folder/b.jpg: 400 ImageDecodeError: not an image\n"


@pytest.mark.parametrize("answers", [[], [(C, NOTHING)], [(B, FAILED)]], ids=["no file", "nothing found", "failed"])
def test_coco_results_of_nothing_are_an_empty_list(answers: list[tuple[Path, Answer]]) -> None:
    assert json.loads(write_all(partial(write_coco, ids=IDS), *answers)) == []


def test_coco_results_that_are_cut_short_are_a_whole_list() -> None:
    stream = io.StringIO()
    with suppress(KeyboardInterrupt), write_coco(stream, IDS) as write:
        write(A, BOXES)
        raise KeyboardInterrupt
    assert json.loads(stream.getvalue()) == RESULTS


def test_a_classifier_has_no_coco_results() -> None:
    with pytest.raises(ConfigError, match="for detectors"):
        write_all(partial(write_coco, ids=IDS), (A, CLASSES))


def test_without_annotations_the_images_are_numbered_and_listed_beside(tmp_path: Path) -> None:
    beside, results = tmp_path / "found.images.json", tmp_path / "found.json"
    new_writer = partial(write_coco, ids=number_images([A, B, C]), images_file=beside)
    results.write_text(write_all(new_writer, (A, BOXES), (B, FAILED), (C, BOXES)))
    found = coco.COCO(str(beside)).loadRes(str(results))
    assert [image["file_name"] for image in found.loadImgs([1, 2, 3])] == ["folder/a.jpg", "folder/b.jpg", "c.jpg"]
    assert [category["name"] for category in found.loadCats([1, 3])] == ["cat", "dog"]
    assert [len(found.getAnnIds(imgIds=[image_id])) for image_id in (1, 2, 3)] == [2, 0, 2]


def write_annotations(folder: Path, **changes: Any) -> Path:
    document = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "other/a.jpg"}],
        "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
        **changes,
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(document))
    return path


def test_ids_come_from_the_annotations_by_the_longest_end_of_the_path_and_the_label(tmp_path: Path) -> None:
    there = Path("/data/other/a.jpg")
    ids = match_images([A, there], write_annotations(tmp_path))
    assert ids.image_ids == {A: 7, there: 8}
    results = json.loads(write_all(partial(write_coco, ids=ids), (A, BOXES)))
    assert [(result["image_id"], result["category_id"]) for result in results] == [(7, 17), (7, 18)]


def test_a_file_that_the_annotations_lack_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"1 of 2 files are not in its images: c\.jpg"):
        match_images([A, C], write_annotations(tmp_path))


def test_a_label_that_the_annotations_lack_is_refused(tmp_path: Path) -> None:
    ids = match_images([A], write_annotations(tmp_path, categories=[{"id": 1, "name": "cat"}]))
    with pytest.raises(ConfigError, match="'dog' is not a category"):
        write_all(partial(write_coco, ids=ids), (A, BOXES))


def test_a_file_that_is_no_annotation_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('{"images": []}')
    with pytest.raises(ConfigError, match="missing key 'categories'"):
        match_images([A], path)


def test_a_vector_has_a_line_in_a_table() -> None:
    text = write_all(FORMATS["table"], (A, {"embedding": [0.25, -1.5, 3.0, 4.0, 5.0]}))
    assert "5 numbers: 0.25, -1.5, 3, 4, ..." in text
