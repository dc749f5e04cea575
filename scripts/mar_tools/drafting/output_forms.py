"""How a network's answers are to be read: by their names, shapes and values on photographs.

Each rule looks for one form. The first that finds it tells the task, `output:` of the recipe, and why.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mar_tools.drafting.drafts import Noted, assume
from vision_serving.errors import ConfigError
from vision_serving.geometry import SizeHW
from vision_serving.options import Task

Outputs = Mapping[str, Tensor]
STRIDES = (8, 16, 32)
ANCHORS = 3  # boxes of a cell, in heads of YOLOv3 to v7
ALMOST_ALL = 0.99
SUM_TOLERANCE = 1e-3
MOST_FEATURES_OF_BOXES = 7  # of an end-to-end head: batch, box, score, class


@dataclass(frozen=True)
class Reading:
    """output: of the recipe's model, empty for the task's own. classes: where the answer tells their number."""

    task: Task
    output: Mapping[str, Any] = field(default_factory=dict)
    classes: int | None = None
    notes: tuple[str, ...] = ()


Rule = Callable[[Outputs, SizeHW], Reading | None]


def read_outputs(outputs: Outputs, size_hw: SizeHW) -> Reading:
    """Raises ConfigError for answers of no known form, with the shapes and ranges that were seen.

    outputs: by name, with the batch first, of photographs whose pixels were scaled to [0, 1].
    """
    for rule in RULES:
        reading = rule(outputs, size_hw)
        if reading is not None:
            return reading
    raise ConfigError(
        f"the answers have no form that is known here: {describe_outputs(outputs)}; write a Python file that reads "
        "them (docs/use/own_models.md, a package with its own decode)"
    )


def describe_outputs(outputs: Outputs) -> str:
    return ", ".join(
        f"{name} {tuple(values.shape)} from {float(values.min()):.3g} to {float(values.max()):.3g}"
        for name, values in outputs.items()
    )


def _classes(outputs: Outputs, _: SizeHW) -> Reading | None:
    """(N, C), alone or before others."""
    flat = [(place, values) for place, values in enumerate(outputs.values()) if values.dim() == 2]
    if not flat or any(values.dim() == 3 for values in outputs.values()):
        return None
    place, values = flat[0]
    classes = values.shape[1]
    if classes == 1:
        raise ConfigError(
            "the answer is one value an image, (N, 1), which names no class; give the network two outputs, or write "
            "them in a Python file"
        )
    picked = {} if len(outputs) == 1 else {"index": assume(place, f"the first of {len(outputs)} with (N, C)")}
    in_unit = bool(values.min() >= 0) and bool(values.max() <= 1 + SUM_TOLERANCE)
    if in_unit and bool(((values.sum(1) - 1).abs() <= SUM_TOLERANCE).all()):
        shape = Noted("probabilities", f"{classes} values that sum to 1 on photographs")
        return Reading("classification", {"format": shape, **picked}, classes)
    if in_unit:
        raise ConfigError(
            f"the answers are {classes} scores in [0, 1] that do not sum to 1, so of labels that exclude nothing; "
            "take the last sigmoid out of the network, and say `output: {activation: sigmoid}`"
        )
    return Reading("classification", picked, classes)


def _detr(outputs: Outputs, _: SizeHW) -> Reading | None:
    """`logits` and `pred_boxes`; with softmax, most boxes are of the last class, "no object"."""
    if not {"logits", "pred_boxes"} <= outputs.keys():
        return None
    logits = outputs["logits"]
    nothing = float((logits.argmax(-1) == logits.shape[-1] - 1).float().mean())
    softmax = nothing > 0.5
    activation = assume(
        "softmax" if softmax else "sigmoid",
        f"the last class is the best of {nothing:.0%} of the boxes, so it is{'' if softmax else ' not'} 'no object'",
    )
    return Reading("detection", {"format": "detr", "activation": activation}, logits.shape[-1] - softmax)


def _boxes_and_scores(outputs: Outputs, size_hw: SizeHW) -> Reading | None:
    """(N, Q, 4) and (N, Q, C)."""
    dense = {name: values for name, values in outputs.items() if values.dim() == 3}
    if len(outputs) != 2 or len(dense) != 2:
        return None
    names = sorted(dense, key=lambda name: dense[name].shape[-1] != 4)
    boxes, scores = (dense[name] for name in names)
    if boxes.shape[-1] != 4 or boxes.shape[1] != scores.shape[1]:
        return None
    return Reading("detection", {"format": "boxes_scores"}, scores.shape[-1])


def _yolo(outputs: Outputs, size_hw: SizeHW) -> Reading | None:
    """One tensor of three dimensions: rows or columns of box, objectness perhaps, and classes."""
    dense = [(place, values) for place, values in enumerate(outputs.values()) if values.dim() == 3]
    if not dense:
        return None
    place, values = max(dense, key=lambda found: found[1].numel())
    columns = values.shape[1] < values.shape[2]
    rows = values.transpose(1, 2) if columns else values
    count, features = rows.shape[1:]
    if features <= 4:
        return None
    objectness, why = _find_objectness(rows, count, columns, size_hw)
    output: dict[str, Any] = {
        "format": "yolo",
        "layout": Noted("columns" if columns else "rows", f"(N, {values.shape[1]}, {values.shape[2]})"),
        "objectness": assume(objectness, why),
        **_read_boxes(rows[..., :4], size_hw),
    }
    scores = rows[..., 4:]
    if bool(scores.min() < -SUM_TOLERANCE) or bool(scores.max() > 1 + SUM_TOLERANCE):
        output["activation"] = Noted("sigmoid", f"scores from {float(scores.min()):.3g} to {float(scores.max()):.3g}")
    if len(outputs) > 1:
        output["index"] = Noted(place, f"the largest of {len(outputs)} outputs")
    return Reading("detection", output, features - 4 - objectness)


def _find_objectness(rows: Tensor, count: int, columns: bool, size_hw: SizeHW) -> tuple[bool, str]:
    cells = sum((size_hw[0] // stride) * (size_hw[1] // stride) for stride in STRIDES)
    if count == ANCHORS * cells:
        return True, f"{count} boxes are three a cell, as YOLOv3 to v7 have them, with an objectness"
    if count == cells and columns:
        return False, f"{count} boxes are one a cell, in columns, as YOLOv8 and later have them, without objectness"
    if count == cells:
        return True, f"{count} boxes are one a cell, in rows, as YOLOX has them, with an objectness"
    return not columns, "rows mostly have one, columns mostly none"


def _read_boxes(boxes: Tensor, size_hw: SizeHW) -> dict[str, Any]:
    """Tell corners from centre and size, and parts of the image from pixels, by the values of all boxes."""
    found: dict[str, Any] = {}
    ordered = float(((boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])).float().mean())
    if ordered >= ALMOST_ALL:
        found["boxes"] = assume("xyxy", f"in {ordered:.0%} of the boxes the second corner is the larger")
    largest = float(boxes.quantile(0.999)) if boxes.numel() < 1 << 24 else float(boxes.max())
    if largest <= 2:
        found["normalized"] = assume(True, f"no coordinate is much above {largest:.3g}")
    return found


RULES: tuple[Rule, ...] = (_detr, _boxes_and_scores, _classes, _yolo)
