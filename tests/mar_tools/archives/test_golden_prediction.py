from pathlib import Path
from typing import Any

import orjson
import PIL.Image
import pytest
import torch
from conftest import TinyModel

from mar_tools.archives.golden_prediction import Golden, GoldenEntry, read_golden
from mar_tools.verification.golden_making import measure_clearness
from mar_tools.verification.observations import load_handler
from vision_serving.answers.responses import encode_response
from vision_serving.errors import ConfigError
from vision_serving.requests.payload import Payload

SCORED = tuple(GoldenEntry(class_id=class_id, score=score) for class_id, score in ((7, 0.9), (1, 0.06), (4, 0.03)))
CLASSES = Golden(options={"top_k": "3"}, found=SCORED, score_tolerance=0.05, least_iou=0.75)
PLACED = (
    GoldenEntry(class_id=2, score=0.9, box=(10, 10, 50, 50)),
    GoldenEntry(class_id=3, score=0.52, box=(60, 60, 90, 90)),
)
BOXES = Golden(options={}, found=PLACED, score_threshold=0.5, score_tolerance=0.05, least_iou=0.75)


def classes(*found: tuple[int, float]) -> dict[str, Any]:
    return {"classes": [{"class_id": class_id, "label": "?", "score": score} for class_id, score in found]}


def boxes(*found: tuple[int, float, list[float]]) -> dict[str, Any]:
    detections = [{"class_id": class_id, "label": "?", "score": score, "box": box} for class_id, score, box in found]
    return {"detections": detections, "image": {"width": 100, "height": 100}}


@pytest.mark.parametrize(
    ("answer", "differences"),
    [
        (classes((7, 0.9), (1, 0.06), (4, 0.03)), []),
        (classes((7, 0.86), (4, 0.06), (1, 0.05)), []),
        (classes((7, 0.9), (1, 0.06), (5, 0.05)), []),
        (classes((7, 0.8), (1, 0.06), (4, 0.03)), ["class 7: expected a score of 0.900, got 0.800"]),
        (
            classes((8, 0.9), (1, 0.06), (4, 0.03)),
            [
                "class 7: expected a score of 0.900, got at most 0.030",
                "class 8: expected a score of at most 0.030, got 0.900",
            ],
        ),
        ({"detections": []}, ["expected classes, got {'detections': []}"]),
        ({"classes": [{"class_id": "seven"}]}, ["expected classes, got {'classes': [{'class_id': 'seven'}]}"]),
        ([], ["expected classes, got []"]),
    ],
    ids=["same", "rounded", "another last class", "score", "class", "of a detector", "no answer", "a list"],
)
def test_classes_are_compared_within_the_tolerance(answer: Any, differences: list[str]) -> None:
    assert CLASSES.find_differences(answer) == differences


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        (boxes((2, 0.9, [10, 10, 50, 50]), (3, 0.52, [60, 60, 90, 90])), 0),
        (boxes((2, 0.87, [11, 10, 51, 50])), 0),
        (boxes((2, 0.9, [10, 10, 50, 50]), (5, 0.53, [0, 0, 9, 9])), 0),
        (boxes(), 1),
        (boxes((2, 0.9, [30, 10, 70, 50])), 2),
        (boxes((3, 0.9, [10, 10, 50, 50])), 2),
        (boxes((2, 0.9, [10, 10, 50, 50]), (5, 0.9, [0, 0, 9, 9])), 1),
        ({"classes": []}, 1),
    ],
    ids=["same", "rounded, one below", "one above", "none", "elsewhere", "class", "one more", "of a classifier"],
)
def test_boxes_near_the_threshold_may_come_and_go_and_clear_ones_must_be_there(answer: Any, count: int) -> None:
    assert len(BOXES.find_differences(answer)) == count


@pytest.mark.parametrize("model", ["tiny_classifier", "tiny_detector"])
def test_a_verified_export_has_a_golden_prediction_that_it_gives(request: pytest.FixtureRequest, model: str) -> None:
    exported: TinyModel = request.getfixturevalue(model)
    folder = exported.folders["openvino"]
    prepared = read_golden(folder)
    assert prepared is not None
    picture, golden = prepared
    (outcome,) = load_handler(folder).predict([Payload(images=(picture,), options=golden.options)])
    assert golden.find_differences(orjson.loads(encode_response(outcome).body)) == []
    with PIL.Image.open(folder / "golden.png") as opened:
        assert (opened.format, max(opened.size) <= 512, opened.info) == ("PNG", True, {})


def test_the_clearest_class_is_the_one_with_the_largest_margin(tiny_classifier: TinyModel) -> None:
    handler = load_handler(tiny_classifier.folders["eager"])
    clear, undecided = (measure_clearness(handler, {"logits": torch.tensor(row)}) for row in ([9.0, 0, 0], [9.0, 8, 0]))
    assert clear > undecided


def test_of_a_detector_lone_boxes_are_clearer_than_doubtful_or_crowded_ones(tiny_detector: TinyModel) -> None:
    handler = load_handler(tiny_detector.folders["eager"])

    def measure(*found: tuple[float, list[float]]) -> tuple[float, ...]:
        scores = torch.tensor([score for score, _ in found])
        places = torch.tensor([box for _, box in found]).reshape(-1, 4)
        return measure_clearness(handler, {"scores": scores, "boxes": places, "class_ids": torch.zeros(len(found))})

    here, near, far = [0.0, 0, 10, 10], [0.0, 3, 10, 13], [20.0, 20, 30, 30]
    others = [(0.8, far), (0.7, far), (0.501, far), (0.8, near)]
    ranks = [*(measure((0.9, here), other) for other in others), measure()]
    assert ranks == sorted(ranks, reverse=True)
    assert len(set(ranks)) == len(ranks)


def test_an_archive_without_one_has_none_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    assert read_golden(tmp_path) is None
    (tmp_path / "golden.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"golden\.json: its picture cannot be read"):
        read_golden(tmp_path)
    (tmp_path / "golden.png").touch()
    with pytest.raises(ConfigError, match="missing key 'options'"):
        read_golden(tmp_path)
