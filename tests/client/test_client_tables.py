"""Results as the server's JSON, and as tables of pandas."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vision_client import PredictionError, Results
from vision_client.pictures import SentPicture
from vision_client.results import read_answer

NOTES = Path(__file__).resolve().parents[2] / "examples" / "notes" / "answer.json"
CLASSES = {"classes": [{"class_id": 3, "label": "cat", "score": 0.75}, {"class_id": 1, "label": "dog", "score": 0.25}]}
BOX = {"class_id": 1, "label": "person", "score": 0.9, "box": [6.0, 4.0, 30.0, 20.0]}
IMAGE = {"image": {"width": 60, "height": 40}}
ANSWERS: dict[str, Any] = {
    "classes": CLASSES,
    "no class": {"classes": []},
    "boxes": {"detections": [BOX, BOX], **IMAGE},
    "nothing": {"detections": [], **IMAGE},
    "other boxes": {"detections": [BOX], **IMAGE, "box_format": "xywh"},
    "turned": {"detections": [{**BOX, "corners": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]}], **IMAGE},
    "masks": {"detections": [{**BOX, "mask": {"size": [40, 60], "counts": "P3d0"}}, {**BOX, "mask": None}], **IMAGE},
    "points": {"detections": [{**BOX, "keypoints": [[1.0, 2.0, 0.5]]}], **IMAGE},
    "vector": {"embedding": [0.25, -1.0]},
    "explanation": {
        "class_id": 7,
        "label": "7",
        "score": 0.9,
        "method": "occlusion",
        "heat_map": {"height": 1, "width": 2, "box": [0.0, 0.0, 60.0, 40.0], "values": [[0.5, -0.25]]},
        **IMAGE,
    },
    "unknown": {"segments": [{"a": 1}], "count": 1},
    "later": {**CLASSES, "tiles": 4},
}


def answer(document: Any, path: str | None = None) -> Any:
    return read_answer(json.dumps(document).encode(), SentPicture(path) if path else None)


@pytest.mark.parametrize("document", ANSWERS.values(), ids=ANSWERS)
def test_a_dict_is_the_json_of_the_server(document: Any) -> None:
    assert json.dumps(answer(document).to_dict()) == json.dumps(document)


def test_a_dict_is_that_of_a_real_answer_to_the_letter() -> None:
    assert json.dumps(read_answer(NOTES.read_bytes()).to_dict()) == NOTES.read_text().strip()


def test_a_changed_dict_leaves_the_result_as_it_was() -> None:
    result = answer(ANSWERS["masks"])
    result.to_dict()["detections"][0]["mask"]["size"].append(1)
    assert result.to_dict() == ANSWERS["masks"]


@pytest.mark.parametrize(
    ("name", "columns", "rows"),
    [
        ("classes", ["class_id", "label", "score"], 2),
        ("no class", ["class_id", "label", "score"], 0),
        ("boxes", ["class_id", "label", "score", "x1", "y1", "x2", "y2"], 2),
        ("nothing", ["class_id", "label", "score", "x1", "y1", "x2", "y2"], 0),
        ("other boxes", ["class_id", "label", "score", "x", "y", "width", "height"], 1),
        ("turned", ["class_id", "label", "score", "x1", "y1", "x2", "y2", "corners"], 1),
        ("masks", ["class_id", "label", "score", "x1", "y1", "x2", "y2", "mask"], 2),
        ("vector", ["0", "1"], 1),
        ("explanation", ["class_id", "label", "score", "method"], 1),
        ("unknown", ["count"], 1),
    ],
)
def test_a_table_has_a_row_for_each_class_or_box(name: str, columns: list[str], rows: int) -> None:
    table = answer(ANSWERS[name]).to_pandas()
    assert list(table.columns) == columns
    assert len(table) == rows


def test_an_empty_table_has_the_types_of_a_full_one() -> None:
    full, empty = answer(ANSWERS["boxes"]).to_pandas(), answer(ANSWERS["nothing"]).to_pandas()
    assert dict(full.dtypes) == dict(empty.dtypes)


def test_many_results_are_one_table_with_the_number_and_file_of_each() -> None:
    failed = PredictionError(400, "ImageDecodeError", "not an image")
    results = Results(
        [answer(CLASSES, "pets/a.png"), failed, answer(ANSWERS["no class"], "pets/b.png"), answer(CLASSES)]
    )
    table = results.to_pandas()
    assert list(table.columns) == ["image", "file", "class_id", "label", "score", "error"]
    assert table["image"].tolist() == [0, 0, 1, 2, 3, 3]
    assert table["file"].fillna("").tolist() == ["pets/a.png", "pets/a.png", "", "pets/b.png", "", ""]
    assert table["error"].fillna("").tolist() == ["", "", str(failed), "", "", ""]
    assert np.isnan(table["score"][2])


def test_many_results_are_a_list_of_dicts_with_errors_as_the_server_writes_them() -> None:
    results = Results([answer(CLASSES), PredictionError(400, "ImageDecodeError", "not an image")])
    error = {"error": {"code": 400, "type": "ImageDecodeError", "message": "not an image"}}
    assert results.to_dict() == [CLASSES, error]


@pytest.mark.parametrize("results", [answer(CLASSES), Results()], ids=["one", "many"])
def test_without_pandas_the_error_says_what_to_install(results: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        results.to_pandas()
