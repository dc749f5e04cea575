"""What networks give, decoded by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vision_serving.config import PreprocessingConfig, ResizeConfig
from vision_serving.errors import ConfigError
from vision_serving.graphs.construction import build_graph
from vision_serving.graphs.outputs import OutputDecoder, OutputFormat
from vision_serving.options import Task
from vision_serving.validation import parse_config

HEIGHT, WIDTH = 40, 80
PREPROCESSING = PreprocessingConfig(resize=ResizeConfig(mode="exact", size=(HEIGHT, WIDTH)))
PIXELS = torch.zeros(1, HEIGHT, WIDTH, 3, dtype=torch.uint8)
LOGIT_3 = 1.0986123  # sigmoid 0.75


class Says(nn.Module):
    """Answers every picture alike."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, _: Tensor) -> Any:
        return self.answer


def decode(answer: Any, task: Task = "detection", **output: Any) -> dict[str, Tensor]:
    outputs: dict[str, Tensor] = build_graph(Says(answer), task, PREPROCESSING, OutputFormat(**output))(PIXELS)
    return outputs


# One box: centre (20, 10), 8 wide and 6 high.
XYWH, CORNERS = [20.0, 10.0, 8.0, 6.0], [16.0, 7.0, 24.0, 13.0]
PARTS = [20 / WIDTH, 10 / HEIGHT, 8 / WIDTH, 6 / HEIGHT]
PART_CORNERS = [16 / WIDTH, 7 / HEIGHT, 24 / WIDTH, 13 / HEIGHT]


@pytest.mark.parametrize(
    ("row", "output", "scores"),
    [
        ([*XYWH, 0.1, 0.7], {}, [0.1, 0.7]),
        ([*XYWH, 0.5, 0.1, 0.7], {"objectness": True}, [0.05, 0.35]),
        ([*CORNERS, 0.1, 0.7], {"boxes": "xyxy"}, [0.1, 0.7]),
        ([*PARTS, 0.1, 0.7], {"normalized": True}, [0.1, 0.7]),
        ([*PART_CORNERS, 0.1, 0.7], {"normalized": True, "boxes": "xyxy"}, [0.1, 0.7]),
        ([*XYWH, -LOGIT_3, LOGIT_3], {"activation": "sigmoid"}, [0.25, 0.75]),
        ([*XYWH, LOGIT_3, 0.0, LOGIT_3], {"activation": "sigmoid", "objectness": True}, [0.375, 0.5625]),
    ],
    ids=["as in v8", "as in v5", "corners", "parts", "corners in parts", "logits", "logits of both"],
)
@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_a_yolo_head_is_decoded(row: list[float], output: dict[str, Any], scores: list[float], layout: str) -> None:
    answer = torch.tensor([[row, [0.0] * len(row)]])
    given = {"format": "yolo", "layout": layout, "objectness": False, **output}
    found = decode(answer if layout == "rows" else answer.transpose(1, 2), **given)
    torch.testing.assert_close(found["boxes"][0, 0], torch.tensor(CORNERS), atol=1e-5, rtol=0)
    torch.testing.assert_close(found["scores"][0, 0], torch.tensor(scores), atol=1e-6, rtol=0)
    assert found["boxes"].shape == (1, 2, 4)
    assert found["scores"].shape == (1, 2, 2)


def test_one_of_several_values_is_picked() -> None:
    answer = (torch.zeros(1, 3), [torch.zeros(1)], torch.tensor([[[*XYWH, 0.7]]]))
    found = decode(answer, format="yolo", layout="rows", objectness=False, index=2)
    assert found["boxes"].tolist() == [[CORNERS]]


@pytest.mark.parametrize("objectness", [True, False])
def test_the_wrong_layout_is_refused_where_no_class_is_left(objectness: bool) -> None:
    with pytest.raises(ConfigError, match="is the layout 'columns'"):
        decode(torch.zeros(1, 84, 4), format="yolo", layout="rows", objectness=objectness)


# Scores 0.2, 0.6, 0.2 and 0.1, 0.1, 0.8: the last is "no object".
SOFTMAX_LOGITS = torch.tensor([[[0.2, 0.6, 0.2], [0.15, 0.1, 0.75]]]).log()


def test_a_detr_head_with_softmax_gives_one_class_a_box() -> None:
    boxes = torch.tensor([[PARTS, PARTS]])
    found = decode({"logits": SOFTMAX_LOGITS, "pred_boxes": boxes}, format="detr", activation="softmax")
    torch.testing.assert_close(found["scores"], torch.tensor([[[0.0, 0.6], [0.15, 0.0]]]))
    torch.testing.assert_close(found["boxes"], torch.tensor([[CORNERS, CORNERS]]))


def test_equal_classes_of_a_detr_head_give_one_class() -> None:
    answer = (torch.zeros(1, 1, 4), torch.tensor([[PARTS]]))
    found = decode(answer, format="detr", activation="softmax")
    assert found["scores"].tolist() == [[[0.25, 0.0, 0.0]]]


def test_a_detr_head_with_sigmoid_gives_every_class() -> None:
    answer = (torch.tensor([[[LOGIT_3, -LOGIT_3]]]), torch.tensor([[PARTS]]))
    found = decode(answer, format="detr", activation="sigmoid")
    torch.testing.assert_close(found["scores"], torch.tensor([[[0.75, 0.25]]]))


@pytest.mark.parametrize("pair", [True, False], ids=["tuple", "dict"])
def test_boxes_and_scores_are_taken_as_they_are(pair: bool) -> None:
    boxes, scores = torch.tensor([[CORNERS]]), torch.tensor([[[0.1, 0.9]]])
    found = decode((boxes, scores) if pair else {"boxes": boxes, "scores": scores, "more": None})
    assert torch.equal(found["boxes"], boxes)
    assert torch.equal(found["scores"], scores)


def test_logits_whose_softmax_is_the_given_probabilities() -> None:
    probabilities = torch.tensor([[0.0, 0.25, 0.75]])
    found = decode(probabilities, "classification", format="probabilities")["logits"]
    torch.testing.assert_close(found.softmax(-1), probabilities)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        (torch.ones(1, 3), {}),
        ({"logits": torch.ones(1, 3), "features": None}, {}),
        ((torch.zeros(1, 8), torch.ones(1, 3)), {"index": 1}),
    ],
    ids=["tensor", "dict", "tuple"],
)
def test_logits_are_found(answer: Any, output: dict[str, Any]) -> None:
    assert decode(answer, "classification", **output)["logits"].tolist() == [[1, 1, 1]]


YOLO = {"format": "yolo", "layout": "rows", "objectness": False}


@pytest.mark.parametrize(
    ("answer", "task", "output", "message"),
    [
        (torch.ones(3), "classification", {}, r"logits \(N, C\), Says gave a tensor \(3,\)"),
        ((torch.ones(1, 3), 1), "classification", {}, "gave a tuple of 2; `output: index:` picks one"),
        ((torch.ones(1, 3),), "classification", {"index": 3}, "gave a tuple of 1"),
        ({"a": 1}, "classification", {}, r"gave a dict of \['a'\]"),
        (torch.ones(1, 3, 4), "detection", {}, r"a detector gives .* gave a tensor \(1, 3, 4\)"),
        ({"boxes": torch.ones(1, 3, 4)}, "detection", {}, r"gave a dict of \['boxes'\]"),
        (torch.ones(1, 3), "detection", YOLO, r"one tensor of three dimensions, Says gave a tensor \(1, 3\)"),
    ],
    ids=["one dimension", "tuple", "index", "dict", "detector", "no scores", "yolo"],
)
def test_an_answer_of_another_form_is_named(answer: Any, task: Task, output: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        decode(answer, task, **output)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": "yolo", "layout": "rows"}, r"needs \['objectness'\]"),
        ({"format": "yolo", "objectness": True}, r"needs \['layout'\]"),
        ({"format": "detr"}, r"needs \['activation'\]"),
        ({"format": "detr", "activation": "none"}, "activation of 'detr' is one of"),
        ({**YOLO, "activation": "softmax"}, "activation of 'yolo' is one of"),
        ({"layout": "rows"}, r"does not take \['layout'\]"),
        ({"format": "boxes_scores", "index": 0}, r"does not take \['index'\]"),
        ({"format": "logits", "index": -1}, "greater than or equal to 0"),
    ],
    ids=["objectness", "layout", "activation", "none", "softmax", "no format", "two values", "negative"],
)
def test_keys_that_do_not_fit_their_format_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(OutputFormat, values, "recipe.yaml")


@pytest.mark.parametrize(
    ("task", "values", "message"),
    [
        ("classification", YOLO, "'yolo' is not for classification; expected one of"),
        ("detection", {"format": "logits"}, "'logits' is not for detection"),
        ("detection", {"index": 0}, "takes two values, so no `index`"),
    ],
    ids=["yolo", "logits", "index"],
)
def test_a_format_of_another_task_is_refused(task: Task, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OutputDecoder(task, OutputFormat(**values))
