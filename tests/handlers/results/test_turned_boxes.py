"""Turned boxes: overlaps, and corners in every answer."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import PIL.Image
import pytest
import torch
from conftest import MakeHandler
from torch import Tensor

from mar_tools.predicting.coco_results import CocoIds, to_results
from mar_tools.predicting.predictors import read_prediction
from vision_client.results import Detections, read_answer
from vision_serving.answers.drawing import class_colour, draw_prediction
from vision_serving.answers.responses import encode_response
from vision_serving.geometry import ImageGeometry
from vision_serving.graphs.detections import from_angles
from vision_serving.options import DetectionOptions
from vision_serving.pictures.resizing import ImageBatch
from vision_serving.requests.contents import AnswerWishes
from vision_serving.requests.payload import Form
from vision_serving.results.outcome import Outcome
from vision_serving.results.postprocessing import Candidates, select_detections, to_gaussians
from vision_serving.results.postprocessing import measure_probabilistic_iou as measure

UPRIGHT = [50.0, 40.0, 40.0, 10.0, 0.0]


def gaussians(*boxes: list[float]) -> Any:
    return to_gaussians(from_angles(torch.tensor(boxes)).numpy())


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (UPRIGHT, 1.0),
        ([50.0, 40.0, 10.0, 40.0, math.pi / 2], 1.0),
        ([50.0, 40.0, 40.0, 10.0, math.pi], 1.0),
        ([500.0, 40.0, 40.0, 10.0, 0.0], 0.0),
        # Of two normal distributions that differ in x alone: exp(-distance) = exp(-dx^2 / (8 * variance)).
        ([60.0, 40.0, 40.0, 10.0, 0.0], 1 - math.sqrt(1 - math.exp(-(10**2) / (8 * 40**2 / 12)))),
        # Turned by a quarter: variances a, b and b, a. exp(-distance) = 2 sqrt(ab) / (a + b).
        ([50.0, 40.0, 40.0, 10.0, math.pi / 2], 1 - math.sqrt(1 - 2 * 40 * 10 / (40**2 + 10**2))),
    ],
    ids=["itself", "sides swapped", "turned by a half", "far away", "moved", "turned by a quarter"],
)
def test_how_much_turned_boxes_overlap(other: list[float], expected: float) -> None:
    first, second = gaussians(UPRIGHT, other)
    assert float(measure(first, second)) == pytest.approx(expected, abs=2e-3)
    assert float(measure(second, first)) == pytest.approx(float(measure(first, second)), abs=1e-6)


def candidates(*boxes: list[float]) -> Candidates:
    corners = from_angles(torch.tensor(boxes))
    points = corners.reshape(-1, 4, 2)
    hulls = torch.cat((points.amin(1), points.amax(1)), dim=1)
    scores = torch.linspace(0.9, 0.6, len(boxes))
    return Candidates(hulls, scores, torch.zeros(len(boxes), dtype=torch.int64), torch.arange(len(boxes)), corners)


@pytest.mark.parametrize("nms", ["class_wise", "class_agnostic", "soft"])
def test_boxes_side_by_side_stay_where_their_hulls_overlap(nms: Any) -> None:
    slanted = [[50.0, 50.0, 60.0, 6.0, math.pi / 4], [60.0, 40.0, 60.0, 6.0, math.pi / 4]]
    near = [51.0, 50.0, 60.0, 6.0, math.pi / 4]
    options = DetectionOptions(nms=nms, iou_threshold=0.5, score_threshold=0.59)
    best = select_detections(candidates(*slanted, near), options)
    assert best.rows is not None
    assert best.rows.tolist() == [0, 1]


GEOMETRY = ImageGeometry((100, 200), (0.5, 0.5), (25, 0), model_hw=(100, 100))  # a letterbox
MODEL_BOX = [50.0, 50.0, 40.0, 20.0, math.pi / 6]


def outputs(score: float) -> dict[str, Tensor]:
    corners = from_angles(torch.tensor([[MODEL_BOX]]))
    points = corners.reshape(1, 1, 4, 2)
    boxes = torch.cat((points.amin(2), points.amax(2)), dim=2)
    return {"boxes": boxes, "scores": torch.tensor([[[0.1, score, 0.0]]]), "corners": corners}


def expected_corners() -> list[float]:
    points = from_angles(torch.tensor([MODEL_BOX])).reshape(4, 2)
    return ((points - torch.tensor([0.0, 25.0])) * 2).flatten().tolist()


def answer(make_handler: MakeHandler, score: float, wishes: AnswerWishes | None = None, **options: Any) -> Any:
    """The body of an answer, as a worker writes it."""
    handler = make_handler("detection", instances="corners")
    batch, chosen = (
        ImageBatch(torch.zeros(1, 100, 100, 3, dtype=torch.uint8), (GEOMETRY,)),
        handler.read_options(options),
    )
    [prediction] = handler.postprocess(outputs(score), batch, [chosen])
    whole = handler.join([prediction], batch.geometries, chosen)
    outcome = Outcome((whole,)) if wishes is None else Outcome((whole,), Form.OPEN_INFERENCE, wishes)
    return encode_response(outcome).body


@pytest.mark.parametrize("box_format", ["xyxy", "xywhn"])
def test_an_answer_has_the_corners_in_pixels_of_the_image(make_handler: MakeHandler, box_format: str) -> None:
    [found] = orjson.loads(answer(make_handler, 0.9, box_format=box_format))["detections"]
    assert found["corners"] == pytest.approx(expected_corners(), abs=0.006)
    if box_format == "xyxy":
        x, y = found["corners"][::2], found["corners"][1::2]
        assert found["box"] == pytest.approx([min(x), min(y), max(x), max(y)], abs=0.02)


@pytest.mark.parametrize("box_format", ["xyxy", "xywh"])
@pytest.mark.parametrize(("score", "count"), [(0.9, 1), (0.2, 0)], ids=["found", "nothing found"])
def test_v2_has_a_tensor_of_corners(make_handler: MakeHandler, score: float, count: int, box_format: str) -> None:
    wishes = AnswerWishes(None, {"corners": False}, False, False)
    body = answer(make_handler, score, wishes, box_format=box_format)
    [tensor] = orjson.loads(body)["outputs"]
    assert tensor["shape"] == [1, count, 8]
    assert tensor["data"] == pytest.approx(expected_corners()[: 8 * count], abs=0.006)


def test_the_client_reads_corners(make_handler: MakeHandler) -> None:
    read = read_answer(answer(make_handler, 0.9))
    assert isinstance(read, Detections)
    assert read.detections[0].corners == pytest.approx(expected_corners(), abs=0.006)
    assert read.detections[0].extra == {}


def test_coco_results_have_the_box_as_a_polygon(make_handler: MakeHandler) -> None:
    document, file = orjson.loads(answer(make_handler, 0.9)), Path("a.png")
    [result] = to_results(file, document, CocoIds({file: 1}))
    assert result["segmentation"] == [document["detections"][0]["corners"]]


def test_a_turned_box_is_drawn_along_its_sides(make_handler: MakeHandler) -> None:
    prediction = read_prediction(orjson.loads(answer(make_handler, 0.9)))
    drawn = np.asarray(draw_prediction(PIL.Image.new("RGB", (800, 400), (9, 9, 9)), prediction))
    points = np.array(expected_corners()).reshape(4, 2) * 4
    for start, end in zip(points, np.roll(points, -1, axis=0), strict=True):
        x, y = ((start + end) / 2).round().astype(int)
        window = drawn[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3)
        assert (window == class_colour(1)).all(axis=1).any(), (x, y)
    left, top = points.min(axis=0).round().astype(int)
    assert (drawn[top : top + 6, left : left + 6] == 9).all(), "a corner of the hull"


def test_tiles_of_turned_boxes_are_refused(make_handler: MakeHandler) -> None:
    with pytest.raises(Exception, match="of a model with corners only whole images are served"):
        answer(make_handler, 0.9, tile_size=64)
