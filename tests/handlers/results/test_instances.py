"""From outputs to the fields of a detection: which value belongs to which box, geometry, options, JSON."""

from typing import Any

import orjson
import pytest
import torch
from conftest import MakeHandler
from fakes import COLOURS, RED, ColourDetector, png
from torch import Tensor

from object_detection import ObjectDetectionHandler
from vision_serving.answers.responses import encode_response
from vision_serving.config import HandlerConfig
from vision_serving.errors import InferenceError, InvalidOptionError
from vision_serving.geometry import ImageGeometry
from vision_serving.options import DetectionOptions, MaskOptions
from vision_serving.predictions import Detection, KeypointDetection, MaskDetection
from vision_serving.requests.payload import Payload
from vision_serving.results.instances import (
    add_instances,
    locate_keypoints,
    read_keypoints,
    take_values,
    to_source_points,
)
from vision_serving.results.outcome import Outcome
from vision_serving.results.postprocessing import Candidates

PLAIN = Detection(1, "person", 0.9, (2.0, 4.0, 6.0, 8.0))
GEOMETRIES = {
    "bounded edges": ImageGeometry((100, 200), (0.5, 0.5), (0, 0)),
    "exact": ImageGeometry((100, 200), (0.5, 0.25), (0, 0)),
    "letterbox": ImageGeometry((100, 200), (0.5, 0.5), (25, 0)),
    "crop": ImageGeometry((100, 200), (0.5, 0.5), (0, -25)),
}


def candidates(rows: Tensor | None) -> Candidates:
    return Candidates(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([0.9]), torch.tensor([1]), rows)


def outputs(name: str, value: float = 1.0) -> dict[str, Tensor]:
    """Of two images; the first one's instances are the candidates 5 and 3."""
    shape = {"masks": (2, 2, 28, 28), "heatmaps": (2, 2, 4, 56, 56)}[name]
    return {name: torch.full(shape, value), "instances": torch.tensor([[5, 3], [2, -1]])}


def test_each_row_gets_its_own_value_and_the_others_none() -> None:
    values = torch.tensor([[10.0], [30.0], [0.0]])
    found = take_values(values, torch.tensor([5, 3, -1]), torch.tensor([3, 4, 5, -1]))
    assert [None if value is None else value.item() for value in found] == [30.0, None, 10.0, None]


@pytest.mark.parametrize(
    ("name", "row", "kind", "is_there"),
    [
        ("masks", torch.tensor([3]), MaskDetection, True),
        ("masks", torch.tensor([4]), MaskDetection, False),
        ("masks", None, MaskDetection, False),
        ("heatmaps", torch.tensor([3]), KeypointDetection, True),
        ("heatmaps", torch.tensor([4]), KeypointDetection, False),
    ],
)
def test_a_detection_gets_the_field_of_its_model(name: str, row: Tensor | None, kind: type, is_there: bool) -> None:
    [found] = add_instances((PLAIN,), candidates(row), outputs(name), 0, GEOMETRIES["exact"], MaskOptions())
    assert type(found) is kind
    assert {key: value for key, value in vars(found).items() if key in vars(PLAIN)} == vars(PLAIN)
    [value] = [value for key, value in vars(found).items() if key not in vars(PLAIN)]
    assert (value is not None) == is_there


def test_detections_of_other_models_stay_as_they_are() -> None:
    given = (PLAIN,)
    assert add_instances(given, candidates(None), {}, 0, GEOMETRIES["exact"], DetectionOptions()) is given


@pytest.mark.parametrize("name", ["masks", "heatmaps"])
def test_values_that_are_not_finite_are_an_error_of_the_image(name: str) -> None:
    broken = outputs(name, float("nan"))
    with pytest.raises(InferenceError, match="not finite"):
        add_instances((PLAIN,), candidates(torch.tensor([3])), broken, 0, GEOMETRIES["exact"], MaskOptions())


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_points_go_back_to_where_they_came_from(geometry: ImageGeometry) -> None:
    """Also those beyond the image: a mask keeps its proportions."""
    source = torch.tensor([[0.0, 0.0], [37.0, 91.0], [-10.0, 250.0]])
    scale, offset = torch.tensor(geometry.scale_hw[::-1]), torch.tensor(geometry.offset_hw[::-1])
    torch.testing.assert_close(to_source_points(source * scale + offset, geometry), source)


def test_a_keypoint_is_where_its_heatmap_is_highest() -> None:
    heatmaps = torch.zeros(2, 56, 56)
    heatmaps[0, 14, 42] = heatmaps[1, 42, 14] = 5.0
    box = torch.tensor([10.0, 20.0, 66.0, 132.0])  # a cell is a pixel wide and two high
    found = locate_keypoints(heatmaps, box)
    assert found[:, :2].tolist() == [[52.5, pytest.approx(49.0, abs=0.6)], [24.5, pytest.approx(105.0, abs=0.6)]]
    assert float(found[:, 2].min()) > 4
    keypoints = read_keypoints(heatmaps, box, GEOMETRIES["exact"])
    assert keypoints[0][0] == pytest.approx(52.5 / 0.25)


# Options

SECTION: dict[str, Any] = {
    "task": "detection",
    "backend": "none",
    "artifact": "none",
    "preprocessing": {"resize": {"mode": "exact", "size": [16, 16]}},
}


def handler_with(instances: str | None) -> ObjectDetectionHandler:
    handler = ObjectDetectionHandler()
    config = HandlerConfig.model_validate({**SECTION, "instances": instances})
    handler.assemble(config, COLOURS, ColourDetector())  # type: ignore[arg-type]
    return handler


def test_masks_have_a_format() -> None:
    assert vars(handler_with("masks").read_options({}))["mask_format"] == "rle"
    with pytest.raises(InvalidOptionError, match=r"'mask_format': Input should be 'rle', 'polygons' or 'none'"):
        handler_with("masks").read_options({"mask_format": "png"})


@pytest.mark.parametrize("instances", ["keypoints", None])
def test_other_detectors_do_not_know_the_option(instances: str | None) -> None:
    with pytest.raises(
        InvalidOptionError, match=r"unknown option 'mask_format'; expected one of \['box_format', 'class_filter'"
    ):
        handler_with(instances).read_options({"mask_format": "rle"})


def test_the_answer_of_a_plain_detector_has_no_new_field(make_handler: MakeHandler) -> None:
    [outcome] = make_handler("detection").predict([Payload(images=(png(RED),))])
    [entry] = orjson.loads(encode_response(Outcome(outcome.items)).body)["detections"]
    assert list(entry) == ["class_id", "label", "score", "box"]
