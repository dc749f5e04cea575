"""A reference that is misread is refused with what was found and what would fit; one that is read right is not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_tiny_recipe
from torch import Tensor

from mar_tools.exporting.export import export_model
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import read_recipe
from mar_tools.verification.gate import require_verified, verify_export
from mar_tools.verification.layouts import FROM_PIXELS, find_fitting_layouts
from mar_tools.verification.observations import observe_candidates
from mar_tools.verification.reading import Reading, check_reading
from mar_tools.verification.seen_answers import Seen
from vision_serving.config import HandlerConfig
from vision_serving.errors import ConfigError
from vision_serving.graphs.outputs import BoxForm, OutputFormat
from vision_serving.options import Task

LABELS = ["cat", "dog", "bird"]
SIZE = 320.0


def config_of(task: Task, **options: Any) -> HandlerConfig:
    preprocessing = {"resize": {"mode": "exact", "size": [int(SIZE), int(SIZE)]}}
    return HandlerConfig.model_validate(
        {"task": task, "backend": "eager", "artifact": "model", "preprocessing": preprocessing, "options": options}
    )


def read_classes(logits: Tensor, allowed: tuple[str, ...] = (), random: bool = False, **known: Any) -> Reading:
    output = OutputFormat.model_validate(known.pop("output", {}))
    seen = Seen([{"logits": row} for row in logits], config_of("classification"), output, LABELS, **known)
    return check_reading(seen, allowed, random_weights=random)


GENERATOR = torch.Generator().manual_seed(0)
LOGITS = 4 * torch.randn(16, 3, generator=GENERATOR)
CAT = LOGITS.sort(dim=1, descending=True).values
TRUTH = tuple({"class_ids": torch.tensor([index % 3])} for index in range(16))
PROBABILITIES = {"format": "probabilities"}
INDEPENDENT = {"activation": "sigmoid"}


@pytest.mark.parametrize(
    ("logits", "known", "words"),
    [
        (LOGITS.where(LOGITS < 3, torch.nan), {}, "gives NaN or infinity for"),
        (LOGITS[:, :1], {}, "one value a picture, and a softmax of one value is always 1"),
        (LOGITS.clamp(min=1e-12).log(), {"output": PROBABILITIES}, "would fit: `output: {format: logits}`"),
        (LOGITS.sigmoid().log(), {"output": PROBABILITIES}, "{format: probabilities, activation: sigmoid}"),
        (LOGITS.softmax(dim=1), {}, "would fit: `output: {format: probabilities}`"),
        (LOGITS.sigmoid(), {}, "{format: probabilities, activation: sigmoid}"),
        (torch.full((16, 3), 0.4), {}, "all its values are the same"),
        (LOGITS[:1].expand(16, 3), {}, "answer to 16 different pictures is the same"),
        (CAT, {"own": True}, "it sees 'cat' in each of 16 pictures"),
        (CAT, {"own": True, "truth": TRUTH}, "it sees 'cat' in each of 16 pictures"),
    ],
    ids=["NaN", "one logit", "no probabilities", "independent", "softmax twice", "sigmoids", "equal", "the same",
         "one class", "one class of several"],
)  # fmt: skip
def test_a_misread_classifier_is_refused(logits: Tensor, known: dict[str, Any], words: str) -> None:
    (fault,) = read_classes(logits, **known).faults
    assert fault.startswith("the reference is misread: ")
    assert words in fault
    assert "Its raw answers: " in fault


@pytest.mark.parametrize(
    ("logits", "known"),
    [
        (LOGITS, {"own": True}),
        (LOGITS.softmax(dim=1).log(), {"output": PROBABILITIES}),
        (LOGITS[:, :1], {"output": INDEPENDENT}),
        (LOGITS.sigmoid(), {"output": INDEPENDENT}),
        (LOGITS[:1].expand(2, 3), {"differing": False}),
        (CAT[:3], {"own": True}),
        (CAT, {"own": True, "truth": TRUTH[:1] * 16}),
        (LOGITS[:1].expand(16, 3), {"allowed": ("same_answer", "one_class"), "own": True}),
        (CAT, {"random": True, "own": True}),
    ],
    ids=["logits", "probabilities", "one independent", "independent", "one picture twice", "few pictures",
         "pictures of one class", "allowed", "random"],
)  # fmt: skip
def test_a_classifier_that_is_read_right_passes(logits: Tensor, known: dict[str, Any]) -> None:
    assert read_classes(logits, **known).faults == []


def test_one_class_on_pictures_that_it_need_not_know_is_only_told() -> None:
    reading = read_classes(CAT)
    assert reading.faults == []
    assert "every picture is 'cat' to the reference" in reading.warnings[0]


def make_boxes(images: int = 4, count: int = 12) -> Tensor:
    corners = torch.rand(images, count, 2, 2, generator=GENERATOR) * (SIZE - 60)
    low = corners.amin(dim=2)
    return torch.cat((low, low + 20 + 40 * torch.rand(images, count, 2, generator=GENERATOR)), dim=2)


BOXES = make_boxes()
SCORES = torch.rand(4, 12, generator=GENERATOR) * 0.6 + 0.3
CLASSES = torch.randint(0, 3, (4, 12), generator=GENERATOR)
CENTRES = torch.cat(((BOXES[..., :2] + BOXES[..., 2:]) / 2, BOXES[..., 2:] - BOXES[..., :2]), dim=2)


def mirror(boxes: Tensor) -> Tensor:
    return torch.stack((SIZE - boxes[..., 2], boxes[..., 1], SIZE - boxes[..., 0], boxes[..., 3]), dim=-1)


def _see_mirrored(boxes: Tensor, scores: Tensor) -> dict[str, Tensor]:
    seen = observe_candidates(boxes, scores)
    return {"mirrored_boxes": seen["raw_boxes"], "mirrored_scores": seen["raw_scores"]}


def read_boxes(
    boxes: Tensor = BOXES, scores: Tensor = SCORES, class_ids: Tensor = CLASSES, labels: Any = LABELS, **known: Any
) -> Reading:
    mirrored = known.pop("mirrored", None)
    images = [
        {
            "boxes": boxes[index],
            "scores": scores[index].sort(descending=True).values,
            "class_ids": class_ids[index],
            "size_hw": torch.tensor([SIZE, SIZE]),
            **observe_candidates(boxes[index], scores[index]),
            **({} if mirrored is None else _see_mirrored(mirrored[index], scores[index])),
        }
        for index in range(len(boxes))
    ]
    allowed, random = known.pop("allowed", ()), known.pop("random", False)
    output = OutputFormat.model_validate(known.pop("output", {}))
    seen = Seen(images, config_of("detection", **known.pop("options", {})), output, labels, **known)
    return check_reading(seen, allowed, random_weights=random)


SAME = BOXES[:1].expand(4, 12, 4), SCORES[:1].expand(4, 12), CLASSES[:1].expand(4, 12)
TWICE = {"format": "yolo", "layout": "rows", "objectness": False, "activation": "sigmoid"}
TWO_CLASSES = ({"labels": torch.tensor([0, 1])},) * 4


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({"scores": SCORES.where(SCORES < 0.8, torch.nan)}, "gives NaN or infinity for"),
        ({"scores": 9 * SCORES}, "Expected [0, 1]"),
        ({"boxes": BOXES[..., [2, 3, 0, 1]]}, "100% of its best boxes end before they begin"),
        ({"boxes": CENTRES}, "would fit, under `output`: `box_format: cxcywh`"),
        ({"boxes": BOXES / SIZE}, "`box_format: xyxy, normalized: true`"),
        ({"boxes": CENTRES / SIZE}, "`box_format: cxcywh, normalized: true`"),
        ({"boxes": torch.randn(4, 12, 4, generator=GENERATOR)}, "No usual layout of boxes fits"),
        ({"scores": torch.full((4, 12), 0.5)}, "all have the score 0.5"),
        (dict(zip(("boxes", "scores", "class_ids"), SAME, strict=True)), "4 different pictures is the same"),
        ({"scores": 0.5 + SCORES / 2, "options": {"max_detections": 12}}, "12 boxes above 0.5, in each of 4"),
        ({"scores": SCORES.sigmoid(), "output": TWICE}, "as a sigmoid of values in [0, 1] does"),
        ({"class_ids": torch.zeros(4, 12).long(), "labels": ["background", "a", "b"]}, "boxes are 'background'"),
        ({"class_ids": torch.zeros(4, 12).long(), "truth": TWO_CLASSES}, "boxes are 'cat'"),
    ],
    ids=["NaN", "raw scores", "inverted", "centres", "relative", "relative centres", "not decoded", "equal scores",
         "the same", "max_detections", "sigmoid twice", "background", "one class of two"],
)  # fmt: skip
def test_a_misread_detector_is_refused(seen: dict[str, Any], words: str) -> None:
    (fault,) = read_boxes(**seen).faults
    assert words in fault
    assert "Its raw answers: x1 " in fault
    assert "model width 320 to 320" in fault


@pytest.mark.parametrize(
    "seen",
    [
        {},
        {"scores": SCORES.where(SCORES > 0.4, -1.0)},
        {"boxes": BOXES / SIZE, "allowed": ("small_boxes",)},
        {"boxes": CENTRES, "random": True},
        {"options": {"max_detections": 5}},
        {"scores": 0.5 + SCORES / 2, "options": {"max_detections": 12}, "truth": ({"labels": CLASSES[0]},) * 4},
    ],
    ids=["clear", "dropped rows", "allowed", "random", "few are wanted", "crowds"],
)
def test_a_detector_that_is_read_right_passes(seen: dict[str, Any]) -> None:
    assert read_boxes(**seen).faults == []


def test_one_class_of_boxes_and_no_boxes_are_told() -> None:
    assert "boxes of the reference are 'cat'" in read_boxes(class_ids=torch.zeros(4, 12).long()).warnings[0]
    assert "no box above its score_threshold of 0.5" in read_boxes(scores=SCORES / 4).warnings[0]


@pytest.mark.parametrize("scale", [1.0, 1 / SIZE])
def test_no_layout_fits_numbers_that_are_no_boxes(scale: float) -> None:
    assert find_fitting_layouts(scale * 1000 * torch.randn(50, 4, generator=GENERATOR), (SIZE, SIZE)) == []


HEAD = """
import torch
from torch import nn


class Head(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.head = nn.Conv2d(3, 7, 8, stride=8)
        centres = torch.arange(4) * 8.0 + 4
        self.register_buffer("centres", torch.cartesian_prod(centres, centres).flip(1))
        self.kind = kind

    def forward(self, images):
        rows = self.head(images).flatten(2).transpose(1, 2)
        if self.kind == "raw":
            return rows
        sizes = rows[..., 2:4].sigmoid() * 12 + 4
        rows = torch.cat((self.centres + 0 * sizes, sizes, rows[..., 4:].sigmoid()), dim=2)
        return rows / torch.tensor([32, 32, 32, 32, 1, 1, 1.0]) if self.kind == "relative" else rows
"""


@pytest.mark.parametrize(
    ("kind", "output", "words"),
    [
        ("decoded", {}, None),
        ("relative", {"normalized": True}, None),
        ("relative", {}, "`box_format: cxcywh, normalized: true`"),
        ("decoded", {"box_format": "xyxy"}, "`box_format: cxcywh`"),
        ("raw", {}, "its scores go from"),
        ("raw", {"activation": "sigmoid"}, "No usual layout of boxes fits"),
    ],
)
def test_a_trained_head_is_checked_before_anything_is_exported(
    tmp_path: Path, kind: str, output: dict[str, Any], words: str | None
) -> None:
    """Those that are misread passed at 200 dB: both sides of the comparison were wrong alike."""
    model = {"source": "python", "file": "head.py", "class": "Head", "arguments": {"kind": kind}, "weights": "head.pth"}
    output = {"format": "yolo", "layout": "rows", "objectness": False, **output}
    path = write_tiny_recipe(tmp_path, "detection", model={**model, "output": output})
    (tmp_path / "head.py").write_text(HEAD)
    torch.manual_seed(0)
    scope: dict[str, Any] = {}
    exec(compile(HEAD, "head.py", "exec"), scope)
    torch.save(scope["Head"](kind).state_dict(), tmp_path / "head.pth")
    recipe = read_recipe(path)
    folder = export_model(recipe, load_checkpoint(recipe), "eager", "fp32", tmp_path / "exports")
    report = verify_export(folder)
    assert report["passed"] == (words is None), report["failures"]
    if words is not None:
        assert words in report["failures"][0]
        with pytest.raises(ConfigError, match="the reference is misread"):
            require_verified(folder)


SURE, OF_EIGHT = torch.tensor([0.9, *[0.1] * 11]).expand(8, 12), torch.randint(0, 3, (8, 12), generator=GENERATOR)
UPRIGHT_PAGE = {"format": "boxes_scores"}


@pytest.mark.parametrize("truth", FROM_PIXELS)
def test_boxes_of_mirrored_pictures_tell_the_form(truth: BoxForm) -> None:
    """What a network gives in one form is read as x1, y1, x2, y2."""
    boxes = make_boxes(images=8)
    given, mirrored = (FROM_PIXELS[truth](side.flatten(0, 1)).reshape(8, 12, 4) for side in (boxes, mirror(boxes)))
    allowed = ("inverted_boxes", "small_boxes")
    reading = read_boxes(given, SURE, OF_EIGHT, mirrored=mirrored, output=UPRIGHT_PAGE, allowed=allowed)
    if truth == "xyxy":
        assert reading.faults == []
    else:
        assert f"`box_format: {truth}`. Its raw answers" in reading.faults[0]
        assert "allow: [not_mirrored]" in reading.faults[0]
    assert read_boxes(given, SURE, OF_EIGHT, mirrored=mirrored, output=UPRIGHT_PAGE, random=True).faults == []
    assert read_boxes(given, SURE * 0.2, OF_EIGHT, mirrored=mirrored, output=UPRIGHT_PAGE, allowed=allowed).faults == []


def test_boxes_that_have_nothing_to_do_with_the_pictures_tell_no_form() -> None:
    for _ in range(20):
        boxes, mirrored = make_boxes(images=8), make_boxes(images=8)
        assert read_boxes(boxes, SURE, OF_EIGHT, mirrored=mirrored, output=UPRIGHT_PAGE).faults == []
