"""The form of a network's answers is read from their names, shapes and values."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from mar_tools.drafting.drafts import without_notes
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


def labelled(first: int) -> dict[str, Tensor]:
    """Boxes of three classes, the first of which has this number."""
    classes = torch.arange(50).remainder(3) + first
    return {"boxes": corners(50, 64), "scores": random(2, 50, low=0.1), "labels": classes.float().repeat(2, 1)}


def turned_rows(order: list[int]) -> Tensor:
    """Rows of chosen boxes whose numbers are in another order."""
    return chosen()[..., order]


def empty_cells(count: int, classes: int, objectness: bool) -> Tensor:
    """Rows (2, count, ...) in which one box of ten has something in it."""
    filled = (torch.arange(count) % 10 == 0).float()[None, :, None]
    scores = random(2, count, classes, low=0.4 if objectness else 0.0)
    scores = (
        torch.cat((0.9 * filled.expand(2, -1, -1), scores), dim=2) if objectness else scores * (0.02 + 0.9 * filled)
    )
    return torch.cat((random(2, count, 4, low=8, high=32), scores), dim=2)


def everywhere(scale: float) -> Tensor:
    """Boxes xyxy (2, CELLS, 4) in all places of a picture, whose sides are `scale`."""
    centres = random(2, CELLS, 2, high=scale)
    return torch.cat((centres - scale / 8, centres + scale / 8), dim=2)


def turned(angles: Tensor) -> Tensor:
    """Rows of chosen boxes that end with an angle."""
    return torch.cat((chosen(), angles), dim=2)


ANGLES = random(2, 100, 1, low=-0.7, high=2.3)
PROTOTYPES = random(2, 8, 16, 16, low=-1)
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
    pytest.param(labelled(1), "detection", {"format": "boxes_scores_labels", "background": "first"}, None, id="from 1"),
    pytest.param(labelled(0), "detection", {"format": "boxes_scores_labels"}, None, id="from 0"),
    pytest.param(
        {
            "detection_boxes": corners(50, 1),
            "detection_scores": random(2, 50),
            "detection_classes": torch.full((2, 50), 3.0),
            "num_detections": torch.full((2,), 50.0),
        },
        "detection",
        {
            "format": "boxes_scores_labels",
            "names": {"boxes": "detection_boxes", "scores": "detection_scores", "labels": "detection_classes"},
            "normalized": True,
            "box_format": "yxyx",
            "background": "first",
        },
        None,
        id="TensorFlow",
    ),
    pytest.param(
        {"boxes": corners(50, 64), "scores": random(2, 50, 4, low=-9, high=-2) + torch.tensor([9.0, 0, 0, 0])},
        "detection",
        {"format": "boxes_scores", "activation": "softmax", "background": "first"},
        3,
        id="logits with a background",
    ),
    pytest.param(
        {"boxes": corners(50, 64), "scores": random(2, 50, 4, low=-9, high=-2)},
        "detection",
        {"format": "boxes_scores", "activation": "sigmoid"},
        4,
        id="independent logits",
    ),
    pytest.param(
        {"x": turned_rows([5, 4, 0, 1, 2, 3])},
        "detection",
        {"format": "end_to_end", "order": ["class", "score", "box"]},
        None,
        id="class, score, box",
    ),
    pytest.param(
        {"x": turned_rows([0, 1, 2, 3, 5, 4])},
        "detection",
        {"format": "end_to_end", "order": ["box", "class", "score"]},
        None,
        id="box, class, score",
    ),
    pytest.param(
        {
            "x": torch.cat(
                (torch.tensor([0.0, 1.0])[:, None, None].expand(2, 100, 1), turned_rows([5, 4, 0, 1, 2, 3])), 2
            )
        },
        "detection",
        {"format": "end_to_end", "order": ["skip", "class", "score", "box"]},
        None,
        id="image, class, score, box",
    ),
    pytest.param(
        {"x": chosen().transpose(1, 2)},
        "detection",
        {"format": "end_to_end", "layout": "columns"},
        None,
        id="columns of chosen boxes",
    ),
    pytest.param(
        {"x": empty_cells(200, 3, objectness=True)},
        "detection",
        {"format": "yolo", "layout": "rows", "objectness": True},
        3,
        id="rows with an objectness",
    ),
    pytest.param(
        {"x": empty_cells(200, 3, objectness=False)},
        "detection",
        {"format": "yolo", "layout": "rows", "objectness": False},
        3,
        id="rows without",
    ),
    pytest.param(
        {"x": empty_cells(CELLS, 1, objectness=False).transpose(1, 2)},
        "detection",
        {"format": "yolo", "layout": "columns", "objectness": False},
        1,
        id="one class",
    ),
    pytest.param(
        {"features": random(2, 9, low=-3), "logits": random(2, 5, low=-3)},
        "classification",
        {"index": 1},
        5,
        id="features first",
    ),
    pytest.param(
        {"a": random(2, 9, low=-3), "b": random(2, 5).softmax(1)},
        "classification",
        {"format": "probabilities", "index": 1},
        5,
        id="sums of 1",
    ),
    pytest.param(
        {"pred_x": random(2, 9, low=-3), "b": random(2, 5).softmax(1)},
        "classification",
        {"format": "probabilities", "index": 1},
        5,
        id="sums of 1 beside a name",
    ),
    pytest.param(
        {"cls_token": random(2, 9, low=-3), "out": random(2, 5, low=-3)},
        "classification",
        {"index": 1},
        5,
        id="tokens first",
    ),
    pytest.param(
        {"x": random(2, 1)},
        "classification",
        {"format": "probabilities", "activation": "sigmoid"},
        1,
        id="one class",
    ),
    pytest.param(
        {"scores": random(2, CELLS, 4, high=0.1), "boxes": everywhere(1)},
        "detection",
        {"format": "boxes_scores", "normalized": True},
        4,
        id="four classes before the boxes",
    ),
    pytest.param(
        {
            "boxes": everywhere(64),
            "conf": (random(2, CELLS, 2) + torch.tensor([3.0, 0])).softmax(-1),
            "landmarks": random(2, CELLS, 10),
        },
        "detection",
        {"format": "boxes_scores", "names": {"boxes": "boxes", "scores": "conf"}, "background": "first"},
        1,
        id="landmarks",
    ),
    pytest.param(
        {"x": torch.cat((rows(CELLS, 7), random(2, CELLS, 8, low=-1)), 2).transpose(1, 2), "masks": PROTOTYPES},
        "detection",
        {"format": "yolo", "layout": "columns", "objectness": False, "masks": True},
        3,
        id="masks",
    ),
    pytest.param(
        {"masks": PROTOTYPES, "x": torch.cat((chosen(), random(2, 100, 8, low=-1)), 2)},
        "detection",
        {"format": "end_to_end", "masks": True, "names": {"rows": "x", "prototypes": "masks"}},
        None,
        id="masks of chosen boxes",
    ),
    pytest.param(
        {"x": torch.cat((rows(CELLS, 7), random(2, CELLS, 1, low=-0.7, high=2.3)), 2).transpose(1, 2)},
        "detection",
        {"format": "yolo", "layout": "columns", "objectness": False, "box_format": "xywhr"},
        3,
        id="turned boxes",
    ),
    pytest.param(
        {"x": turned(ANGLES)}, "detection", {"format": "end_to_end", "box_format": "xywhr"}, None, id="chosen, turned"
    ),
    pytest.param(
        {"logits": random(2, 50, 1, low=-9, high=-2), "pred_boxes": random(2, 50, 4)},
        "detection",
        {"format": "detr", "activation": "sigmoid"},
        1,
        id="deformable DETR of one class",
    ),
    pytest.param(
        {"pred_logits": random(2, 50, 4) + torch.tensor([0, 0, 0, 3.0]), "pred_boxes": random(2, 50, 4)},
        "detection",
        {"format": "detr", "names": {"logits": "pred_logits", "pred_boxes": "pred_boxes"}, "activation": "softmax"},
        3,
        id="DETR under its own names",
    ),
    pytest.param({"embedding": random(2, 9, low=-3)}, "embedding", {"format": "vector"}, None, id="embedding"),
    pytest.param(
        {"x": torch.nn.functional.normalize(random(2, 9, low=-1))},
        "embedding",
        {"format": "vector"},
        None,
        id="length 1",
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
    reading = read_outputs(outputs, SIZE, 2)
    assert (reading.task, without_notes(reading.output), reading.classes) == (task, form, classes)


def test_answers_of_no_known_form_are_named() -> None:
    with pytest.raises(ConfigError, match=r"no form that is known here: heat \(2, 1, 8, 8\) from 0\.\S+ to 0\.\S+;"):
        read_outputs({"heat": random(2, 1, 8, 8)}, SIZE, 2)
    with pytest.raises(ConfigError, match="one number an image, x"):
        read_outputs({"x": random(2)}, SIZE, 2)
    with pytest.raises(ConfigError, match="one value an image"):
        read_outputs({"x": random(2, 1, low=-2)}, SIZE, 2)
    with pytest.raises(ConfigError, match=r"dimensions of 1 too many: x \(2, 5, 1, 1\)"):
        read_outputs({"x": random(2, 5, 1, 1)}, SIZE, 2)
    with pytest.raises(ConfigError, match=r"answers to 2 photographs are all the same: x \(2, 6\)"):
        read_outputs({"x": torch.full((2, 6), -1.0)}, SIZE, 2)


@pytest.mark.parametrize(
    "outputs",
    [
        pytest.param({"loc": random(2, CELLS, 4, low=-2, high=2), "conf": softmaxed(0)}, id="offsets from anchors"),
        pytest.param({"loc": random(2, CELLS, 4, low=-9, high=2), "conf": softmaxed(0)}, id="offsets of small things"),
        pytest.param(
            {"x": torch.cat((random(2, CELLS, 1, high=0.1), random(2, CELLS, 32, low=-9)), 2)}, id="a score, distances"
        ),
        pytest.param(
            {"x": torch.cat((random(2, CELLS, 9, high=0.1), random(2, CELLS, 32, low=-9)), 2)}, id="scores, distances"
        ),
        pytest.param(
            {"loc": random(2, CELLS, 4, low=-2), "conf": random(2, CELLS, 2), "points": random(2, CELLS, 10)},
            id="offsets and landmarks",
        ),
    ],
)
def test_a_head_that_is_not_decoded_is_refused(outputs: Mapping[str, Tensor]) -> None:
    with pytest.raises(ConfigError, match=r"no usual form makes boxes of it|not clear"):
        read_outputs({**outputs, **({"conf": random(2, CELLS, 3)} if len(outputs) == 2 else {})}, SIZE, 2)


def test_values_below_0_may_be_of_independent_classes() -> None:
    values = random(2, 9, low=-8, high=-3)
    assert ["Where each has a score of its own" in note for note in read_outputs({"x": values}, SIZE, 2).notes] == [
        True
    ]
    assert read_outputs({"x": values.log_softmax(1)}, SIZE, 2).notes == ()


def test_what_is_no_score_is_refused_with_its_range() -> None:
    for outputs in (
        {"boxes": corners(50, 64), "scores": random(2, 50, 3, high=100)},
        {"boxes": corners(50, 64), "scores": random(2, 50, high=100), "labels": torch.ones(2, 50)},
        {
            "x": torch.cat((empty_cells(CELLS, 1, objectness=False), random(2, CELLS, 34, low=-2, high=64)), 2)
        },  # keypoints
    ):
        with pytest.raises(ConfigError, match=r"what should be its scores goes from \S+ to (99|100|6\d)"):
            read_outputs(outputs, SIZE, 2)


def test_answers_without_a_place_for_each_image_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"answers to 3 photographs have no place for each of them: x \(50, 7\)"):
        read_outputs({"x": random(50, 7)}, SIZE, 3)


def test_answers_that_may_be_the_classes_are_named() -> None:
    reading = read_outputs({"age": random(2, 9, low=-3), "mood": random(2, 5, low=-3)}, SIZE, 2)
    assert ["index 0: age (2, 9), index 1: mood (2, 5)" in note for note in reading.notes] == [True]
    assert without_notes(reading.output) == {"index": 0}
