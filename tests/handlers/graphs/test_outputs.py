"""What networks give, decoded by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vision_serving.config import PreprocessingConfig, ResizeConfig
from vision_serving.errors import ConfigError
from vision_serving.graphs.construction import build_graph
from vision_serving.graphs.fixed_batches import run_in_parts
from vision_serving.graphs.output_decoder import OutputDecoder
from vision_serving.graphs.outputs import OutputFormat
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
        ([*CORNERS, 0.1, 0.7], {"box_format": "xyxy"}, [0.1, 0.7]),
        ([*PARTS, 0.1, 0.7], {"normalized": True}, [0.1, 0.7]),
        ([*PART_CORNERS, 0.1, 0.7], {"normalized": True, "box_format": "xyxy"}, [0.1, 0.7]),
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


YOLO = {"format": "yolo", "layout": "rows", "objectness": False}
THREE_SCORES, BACKGROUND_FIRST = [0.1, 0.7, 0.2], {"background": "first"}


@pytest.mark.parametrize(
    ("box", "output"),
    [
        ([16.0, 7.0, 8.0, 6.0], {"box_format": "xywh"}),
        (XYWH, {"box_format": "cxcywh"}),
        (PARTS, {"box_format": "cxcywh", "normalized": True}),
        (PART_CORNERS, {"normalized": True}),
        ([7.0, 16.0, 13.0, 24.0], {"box_format": "yxyx"}),
        ([7 / HEIGHT, 16 / WIDTH, 13 / HEIGHT, 24 / WIDTH], {"box_format": "yxyx", "normalized": True}),
    ],
    ids=["corner and size", "centre and size", "its parts", "parts", "y first", "its parts, y first"],
)
@pytest.mark.parametrize(
    ("scores", "more", "expected"),
    [
        (THREE_SCORES, {}, THREE_SCORES),
        (THREE_SCORES, BACKGROUND_FIRST, [0.7, 0.2]),
        (THREE_SCORES, {"background": "last"}, [0.1, 0.7]),
        ([0.0, LOGIT_3], {"activation": "sigmoid", **BACKGROUND_FIRST}, [0.75]),
        ([0.0, LOGIT_3], {"activation": "softmax", **BACKGROUND_FIRST}, [0.75]),
    ],
    ids=["as they are", "background first", "background last", "sigmoid", "softmax"],
)
def test_boxes_and_scores_in_the_words_of_others(
    box: list[float], output: dict[str, Any], scores: list[float], more: dict[str, Any], expected: list[float]
) -> None:
    found = decode({"boxes": torch.tensor([[box]]), "scores": torch.tensor([[scores]])}, **output, **more)
    torch.testing.assert_close(found["boxes"], torch.tensor([[CORNERS]]), atol=1e-5, rtol=0)
    torch.testing.assert_close(found["scores"], torch.tensor([[expected]]))


def test_values_are_found_by_the_names_and_places_that_a_recipe_gives() -> None:
    boxes, scores = torch.tensor([[CORNERS]]), torch.tensor([[[0.1, 0.9]]])
    for answer, names in [
        ({"dets": boxes, "conf": scores}, {"boxes": "dets", "scores": "conf"}),
        ((0, scores, boxes), {"boxes": 2, "scores": 1}),
    ]:
        found = decode(answer, names=names)
        assert torch.equal(found["boxes"], boxes)
        assert torch.equal(found["scores"], scores)


@pytest.mark.parametrize(
    ("labels", "more", "class_ids", "scores"),
    [
        ([2, 0], {}, [2, 0], [0.9, 0.8]),
        ([2.0, -1.0], {}, [2, 0], [0.9, 0.0]),
        ([2, 0], BACKGROUND_FIRST, [1, 0], [0.9, 0.0]),
    ],
    ids=["integers", "filled up", "background"],
)
def test_one_label_a_box(labels: list[float], more: dict[str, Any], class_ids: list[int], scores: list[float]) -> None:
    """In the order of RT-DETR and D-FINE, and as rows."""
    boxes, given = torch.tensor([[CORNERS, CORNERS]]), torch.tensor([[0.9, 0.8]])
    rows = torch.cat((boxes, given.unsqueeze(2), torch.tensor([labels]).float().unsqueeze(2)), dim=2)
    answer = {"labels": torch.tensor([labels]), "boxes": boxes, "scores": given}
    for found in (decode(answer, format="boxes_scores_labels", **more), decode(rows, format="end_to_end", **more)):
        assert torch.equal(found["boxes"], boxes)
        assert found["class_ids"].tolist() == [class_ids]
        assert found["class_ids"].dtype == torch.int64
        torch.testing.assert_close(found["scores"], torch.tensor([scores]))


@pytest.mark.parametrize(
    ("row", "order"),
    [
        ([2.0, 0.9, *CORNERS], ["class", "score", "box"]),
        ([*CORNERS, 2.0, 0.9], ["box", "class", "score"]),
        ([0.0, *CORNERS, 0.9, 2.0], ["skip", "box", "score", "class"]),
        ([0.0, 0.9, *CORNERS, 1.0, 2.0], ["skip", "score", "box", "skip", "class"]),
    ],
    ids=["class first", "score last", "image first", "two of no use"],
)
@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_rows_in_another_order(row: list[float], order: list[str], layout: str) -> None:
    answer = torch.tensor([[row, row, row]])
    given = answer if layout == "rows" else answer.transpose(1, 2)
    found = decode(given, format="end_to_end", order=order, layout=layout)
    assert found["boxes"].tolist() == [[CORNERS] * 3]
    assert found["class_ids"].tolist() == [[2] * 3]
    torch.testing.assert_close(found["scores"], torch.tensor([[0.9] * 3]))


def test_an_answer_has_a_place_for_each_image(tmp_path: Path) -> None:
    rows = torch.tensor([[*CORNERS, 0.9, 2.0]]).expand(2, 1, 6)
    with pytest.raises(ConfigError, match=r"Says gave \[\(2, 1, 6\)\] for 1 images; expected as many"):
        decode(rows, format="end_to_end")
    (tmp_path / "d.py").write_text(
        "def decode(rows, _):\n    return {'boxes': rows[..., :4], 'scores': rows[..., 4:]}\n"
    )
    output = OutputFormat(decode="d.py").located_in(tmp_path)
    with pytest.raises(ConfigError, match=r"`decode` gave \[\(2, 1, 4\), \(2, 1, 2\)\] for 1 images"):
        build_graph(Says(rows), "detection", PREPROCESSING, output)(PIXELS)


def test_what_a_fixed_batch_gives_beside_its_images_is_not_joined() -> None:
    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        return images * 2, torch.arange(5.0)

    images, anchors = run_in_parts(run, 2, torch.arange(3.0))
    assert images.tolist() == [0, 2, 4]
    assert anchors.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("width", "output"), [(7, {}), (6, {"box_format": "xywhr"})], ids=["too many", "no angle"])
def test_rows_of_another_width_are_refused(width: int, output: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"needs rows of {13 - width} values .* got {width}"):
        decode(torch.zeros(1, 9, width), format="end_to_end", **output)


GRIDS: dict[str, Any] = {"format": "yolo", "layout": "rows", "objectness": True, "strides": [20, 40]}


def test_the_grids_of_an_undecoded_head_are_decoded() -> None:
    """Two rows of four cells of 20 pixels, then one row of two cells of 40."""
    rows = torch.zeros(1, 10, 6)
    rows[0, 6] = torch.tensor([0.5, 0.25, torch.tensor(0.5).log(), torch.tensor(2.0).log(), 0.5, 0.5])
    rows[0, 9] = torch.tensor([0.5, 0.5, 0.0, 0.0, 1.0, 0.5])
    found = decode(rows, **GRIDS)
    torch.testing.assert_close(found["boxes"][0, 6], torch.tensor([45.0, 5.0, 55.0, 45.0]))
    torch.testing.assert_close(found["boxes"][0, 9], torch.tensor([40.0, 0.0, 80.0, 40.0]))
    torch.testing.assert_close(found["scores"][0, [6, 9]], torch.tensor([[0.25], [0.5]]))


def test_grids_of_another_size_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\[20, 40\] of 40 x 80 .* are 10 cells; the network gave 9 boxes"):
        decode(torch.zeros(1, 9, 6), **GRIDS)


TURNED = [20.0, 10.0, 8.0, 6.0, 0.5235988]  # by 30 degrees, clockwise as y grows downwards
TURNED_CORNERS = [18.0359, 5.4019, 24.9641, 9.4019, 21.9641, 14.5981, 15.0359, 10.5981]
HULL = [15.0359, 5.4019, 24.9641, 14.5981]


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        (torch.tensor([[[*TURNED[:4], 0.1, 0.7, TURNED[4]]]]), {**YOLO, "box_format": "xywhr"}),
        (torch.tensor([[[*TURNED[:4], 0.7, 1.0, TURNED[4]]]]), {"format": "end_to_end", "box_format": "xywhr"}),
        ((torch.tensor([[TURNED]]), torch.tensor([[[0.1, 0.7]]])), {"box_format": "xywhr"}),
        ((torch.tensor([[TURNED_CORNERS]]), torch.tensor([[[0.1, 0.7]]])), {"box_format": "corners"}),
        (torch.tensor([[[*TURNED_CORNERS, 0.1, 0.7]]]), {**YOLO, "box_format": "corners"}),
    ],
    ids=["yolo", "end to end", "boxes", "corners", "rows of corners"],
)
def test_turned_boxes_have_corners_and_a_hull(answer: Any, output: dict[str, Any]) -> None:
    found = decode(answer, **output)
    torch.testing.assert_close(found["corners"], torch.tensor([[TURNED_CORNERS]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(found["boxes"], torch.tensor([[HULL]]), atol=1e-4, rtol=0)
    assert float(found["scores"].max()) == pytest.approx(0.7)


@pytest.mark.parametrize(
    "row", [[*XYWH, 0.1, 0.7, 3.0, 4.0], [*CORNERS, 0.7, 1.0, 3.0, 4.0]], ids=["yolo", "end to end"]
)
def test_coefficients_of_masks_end_a_row(row: list[float]) -> None:
    prototypes = torch.rand(1, 2, 5, 10)
    output = {"format": "end_to_end"} if row[4] == 0.7 else YOLO
    found = decode((torch.tensor([[row]]), prototypes), masks=True, **output)
    torch.testing.assert_close(found["boxes"], torch.tensor([[CORNERS]]))
    assert found["coefficients"].tolist() == [[[3.0, 4.0]]]
    assert torch.equal(found["prototypes"], prototypes)


HOOK = """
import torch

def decode(outputs, size_hw):
    height, width = size_hw
    boxes = outputs["deltas"] * torch.tensor([width, height, width, height])
    return {"boxes": boxes, "scores": outputs["logits"].sigmoid(), **MORE}
"""


def test_a_hook_decodes_what_no_format_says(tmp_path: Path) -> None:
    (tmp_path / "hook.py").write_text(HOOK.replace("MORE", "{}"))
    answer = {"deltas": torch.tensor([[PART_CORNERS]]), "logits": torch.tensor([[[LOGIT_3]]])}
    output = OutputFormat(decode="hook.py").located_in(tmp_path)
    found = build_graph(Says(answer), "detection", PREPROCESSING, output)(PIXELS)
    torch.testing.assert_close(found["boxes"], torch.tensor([[CORNERS]]))
    torch.testing.assert_close(found["scores"], torch.tensor([[[0.75]]]))
    assert [path.name for path in tmp_path.iterdir()] == ["hook.py"], "bytecode beside it"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HOOK.replace("MORE", '{"count": 1}'), "`decode` returns .*; it gave dict"),
        (
            HOOK.replace("MORE", '{"scores": outputs["deltas"][0]}'),
            r"it gave {'boxes': \(1, 1, 4\), 'scores': \(1, 4\)}",
        ),
        (HOOK.replace("decode", "run"), r"hook.py has no 'decode'; it has \['run'\]"),
        ("import nothing_here", "hook.py cannot be run: ModuleNotFoundError"),
        (None, "hook.py: no such file"),
    ],
    ids=["no tensor", "dimensions", "no function", "import", "no file"],
)
def test_a_hook_that_gives_something_else_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "hook.py").write_text(text)
    answer = {"deltas": torch.tensor([[PART_CORNERS]]), "logits": torch.tensor([[[LOGIT_3]]])}
    output = OutputFormat(decode="hook.py").located_in(tmp_path)
    with pytest.raises(ConfigError, match=message):
        build_graph(Says(answer), "detection", PREPROCESSING, output)(PIXELS)


class TakesSizes(nn.Module):
    def forward(self, images: Tensor, *sizes: Tensor) -> tuple[Tensor, Tensor]:
        self.sizes = [(size.dtype, size.tolist()) for size in sizes]
        return torch.zeros(2, 1, 4), torch.zeros(2, 1, 2)


def test_a_network_is_told_the_size_of_its_images() -> None:
    network = TakesSizes()
    inputs = {"a": "width_height", "b": "height_width", "c": "ones"}
    build_graph(network, "detection", PREPROCESSING, inputs=inputs)(PIXELS.expand(2, -1, -1, -1))  # type: ignore[arg-type]
    assert network.sizes == [(torch.int64, [pair] * 2) for pair in ([WIDTH, HEIGHT], [HEIGHT, WIDTH], [1, 1])]


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


@pytest.mark.parametrize(
    ("answer", "task", "output", "message"),
    [
        (torch.ones(3), "classification", {}, r"needs logits \(N, C\); Says gave \{0: \(3\)\}"),
        (
            (torch.ones(1, 3), 1),
            "classification",
            {},
            r"gave \{0: \(1, 3\), 1: no tensor\}; .* \{format: logits, index: 0",
        ),
        ((torch.ones(1, 3),), "classification", {"index": 3}, r"gave \{0: \(1, 3\)\}"),
        ({"a": 1}, "classification", {}, r"gave \{a: no tensor\}"),
        (
            {"boxes": torch.ones(1, 3, 4)},
            "detection",
            {},
            r"boxes \(N, Q, 4\) and scores .* gave \{boxes: \(1, 3, 4\)\}",
        ),
        (
            torch.ones(1, 3),
            "detection",
            YOLO,
            r"needs rows \(N, Q, 4 \+ C\); Says gave \{0: \(1, 3\)\}.*decode: FILE.py",
        ),
        (
            torch.ones(1, 84, 99),
            "detection",
            {},
            "what fits: output: {format: yolo, layout: columns, objectness: false}",
        ),
        (torch.ones(1, 99, 85), "detection", {}, "what fits: output: {format: yolo, layout: rows, objectness: true}"),
        (torch.ones(1, 30, 6), "detection", {}, "what fits: output: {format: end_to_end}"),
        (torch.ones(1, 30, 7), "detection", {}, "what fits: output: {format: end_to_end, box_format: xywhr}"),
        ([torch.ones(1, 9), torch.ones(1, 9, 4), torch.ones(1, 9)], "detection", {}, "{format: boxes_scores_labels}"),
        ([torch.ones(1, 40, 99), torch.ones(1, 32, 8, 8)], "detection", {}, "objectness: false, masks: true}"),
    ],
    ids=[
        "one dimension",
        "tuple",
        "index",
        "dict",
        "no scores",
        "yolo",
        "columns",
        "rows",
        "end to end",
        "turned",
        "labels",
        "masks",
    ],
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
        ({"format": "boxes_scores", "index": 0}, r"does not take \['index'\]"),
        ({"format": "detr", "activation": "sigmoid", "names": {"boxes": 1}}, r"expected \['logits', 'pred_boxes'\]"),
        ({**YOLO, "decode": "d.py"}, "stands in the place of a `format`"),
        ({**YOLO, "box_format": "xywhr", "normalized": True}, "is in pixels"),
        ({**YOLO, "box_format": "xywhr", "masks": True}, "`masks` go with upright boxes"),
        ({**YOLO, "strides": []}, "at least 1 item"),
        ({"format": "end_to_end", "order": ["box", "class"]}, r"once each, got \['box', 'class'\]"),
        ({**YOLO, "order": ["box", "score", "class"]}, r"does not take \['order'\]"),
        ({"format": "logits", "index": -1}, "greater than or equal to 0"),
    ],
    ids=[
        "objectness",
        "layout",
        "activation",
        "none",
        "softmax",
        "two values",
        "names",
        "decode",
        "turned parts",
        "turned masks",
        "no strides",
        "no score",
        "order",
        "negative",
    ],
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
        ("detection", {"layout": "rows"}, r"'boxes_scores' does not take \['layout'\]"),
        ("classification", {"decode": "d.py"}, "'decode' is not for classification"),
    ],
    ids=["yolo", "logits", "index", "layout", "decode"],
)
def test_a_format_of_another_task_is_refused(task: Task, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OutputDecoder(task, OutputFormat(**values))
