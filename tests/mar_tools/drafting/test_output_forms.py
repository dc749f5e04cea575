"""The form of a network's answers is read from their names, shapes and values."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from mar_tools.drafting.drafts import Noted
from mar_tools.drafting.output_forms import read_outputs
from vision_serving.errors import ConfigError

SIZE = (64, 64)
CELLS = 64 + 16 + 4  # of the strides 8, 16 and 32


def random(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * (high - low) + low


def corners(count: int, scale: float) -> Tensor:
    first = random(2, count, 2, high=scale / 2)
    return torch.cat((first, first + scale / 4), dim=2)


def rows(count: int, features: int, scale: float = 64, centres: bool = True) -> Tensor:
    """Boxes (2, count, 4), centre and size or corners, and scores."""
    boxes = random(2, count, 4, low=scale / 8, high=scale / 2) if centres else corners(count, scale)
    return torch.cat((boxes, random(2, count, features - 4)), dim=2)


def softmaxed(best: int) -> Tensor:
    logits = random(2, 50, 3)
    logits[..., best] += 3
    return logits.softmax(-1)


def chosen() -> Tensor:
    found = rows(100, 6, centres=False)
    found[..., 5] = (found[..., 5] * 3).floor()
    return found


SHAPES = [
    pytest.param({"x": random(2, 5, low=-3, high=3)}, "classification", {}, 5, id="logits"),
    pytest.param({"x": random(2, 5).softmax(1)}, "classification", {"format": "probabilities"}, 5, id="probabilities"),
    pytest.param(
        {"x": random(2, 5)}, "classification", {"format": "probabilities", "activation": "sigmoid"}, 5, id="independent"
    ),
    pytest.param(
        {"map": random(2, 4, 8, 8), "x": random(2, 5, low=-3, high=3)},
        "classification",
        {"index": 1},
        5,
        id="second",
    ),
    pytest.param(
        {"x": rows(CELLS, 7).transpose(1, 2)},
        "detection",
        {"format": "yolo", "layout": "columns", "objectness": False},
        3,
        id="YOLOv8",
    ),
    pytest.param(
        {"x": rows(3 * CELLS, 8)}, "detection", {"format": "yolo", "layout": "rows", "objectness": True}, 3, id="YOLOv5"
    ),
    pytest.param(
        {"x": rows(CELLS, 8) - torch.tensor([0, 0, 40.0, 40, 0, 0, 0, 0])},
        "detection",
        {"format": "yolo", "layout": "rows", "objectness": True, "strides": [8, 16, 32]},
        3,
        id="YOLOX",
    ),
    pytest.param(
        {"x": rows(CELLS, 7, scale=1).transpose(1, 2)},
        "detection",
        {"format": "yolo", "layout": "columns", "objectness": False, "normalized": True},
        3,
        id="relative",
    ),
    pytest.param({"x": chosen()}, "detection", {"format": "end_to_end"}, None, id="end to end"),
    pytest.param(
        {"boxes": corners(50, 64), "scores": random(2, 50, 3)}, "detection", {"format": "boxes_scores"}, 3, id="boxes"
    ),
    pytest.param(
        {"scores": softmaxed(0), "dets": corners(50, 1)},
        "detection",
        {
            "format": "boxes_scores",
            "names": {"boxes": "dets", "scores": "scores"},
            "normalized": True,
            "background": "first",
        },
        2,
        id="background",
    ),
    pytest.param(
        {"labels": torch.ones(2, 50), "boxes": corners(50, 64), "scores": random(2, 50)},
        "detection",
        {"format": "boxes_scores_labels"},
        None,
        id="labels",
    ),
    pytest.param(
        {"logits": random(2, 50, 4) + torch.tensor([0, 0, 0, 3.0]), "pred_boxes": random(2, 50, 4)},
        "detection",
        {"format": "detr", "activation": "softmax"},
        3,
        id="DETR",
    ),
    pytest.param(
        {"logits": random(2, 50, 4), "pred_boxes": random(2, 50, 4)},
        "detection",
        {"format": "detr", "activation": "sigmoid"},
        4,
        id="deformable DETR",
    ),
]


@pytest.mark.parametrize(("outputs", "task", "form", "classes"), SHAPES)
def test_a_form_is_found(outputs: Mapping[str, Tensor], task: str, form: dict[str, Any], classes: int | None) -> None:
    reading = read_outputs(outputs, SIZE)
    found = {key: value.value if isinstance(value, Noted) else value for key, value in reading.output.items()}
    assert (reading.task, found, reading.classes) == (task, form, classes)


def test_answers_of_no_known_form_are_named() -> None:
    with pytest.raises(ConfigError, match=r"no form that is known here: heat \(2, 1, 8, 8\) from 0\.\S+ to 0\.\S+;"):
        read_outputs({"heat": random(2, 1, 8, 8)}, SIZE)
    with pytest.raises(ConfigError, match="one value an image"):
        read_outputs({"x": random(2, 1)}, SIZE)
