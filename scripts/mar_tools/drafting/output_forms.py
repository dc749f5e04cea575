"""How a network's answers are to be read: by their names, shapes and values on photographs.

Each rule looks for one form. The first that finds it tells the task, `output:` of the recipe, and why.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mar_tools.drafting.distribution_heads import FILE, find_distribution_head
from mar_tools.drafting.drafts import Noted, assume
from vision_serving.errors import ConfigError
from vision_serving.geometry import SizeHW
from vision_serving.options import Task

Outputs = Mapping[str, Tensor]
STRIDES = (8, 16, 32)
ANCHORS = 3  # boxes of a cell, in heads of YOLOv3 to v7
ALMOST_ALL = 0.99
SUM_TOLERANCE = 1e-3
END_TO_END = 6  # of a row: box, score, class
LARGEST_PART = 2.0  # boxes that are parts of the image hardly leave it


@dataclass(frozen=True)
class Reading:
    """output: of the recipe's model, empty for the task's own. classes: where the answer tells their number.

    family: whose conventions the pixels follow, where the form tells it. files: that `output` needs, by name.
    """

    task: Task
    output: Mapping[str, Any] = field(default_factory=dict)
    classes: int | None = None
    family: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)


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
    """Look for (N, C), alone or before others."""
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
        several = {"format": "probabilities", "activation": assume("sigmoid", "scores in [0, 1] that do not sum to 1")}
        return Reading("classification", {**several, **picked}, classes)
    return Reading("classification", picked, classes)


def _detr(outputs: Outputs, _: SizeHW) -> Reading | None:
    """Look for `logits` and `pred_boxes`; with softmax, most boxes are of the last class, "no object"."""
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
    """Look for (N, Q, 4) and (N, Q, C), or (N, Q) and labels (N, Q)."""
    boxes_name = next((name for name, values in outputs.items() if values.dim() == 3 and values.shape[-1] == 4), None)
    if boxes_name is None:
        return None
    boxes = outputs[boxes_name]
    others = {name: v for name, v in outputs.items() if name != boxes_name and v.shape[:2] == boxes.shape[:2]}
    flat = {name: values for name, values in others.items() if values.dim() == 2}
    if len(flat) == 2:
        labels_name = max(flat, key=lambda name: float((flat[name] == flat[name].round()).float().mean()))
        scores_name = next(name for name in flat if name != labels_name)
        names = {"boxes": boxes_name, "scores": scores_name, "labels": labels_name}
        form = {"format": "boxes_scores_labels", **_names(names), **_read_boxes(boxes, size_hw, "xyxy")}
        return Reading("detection", form)
    dense = [name for name, values in others.items() if values.dim() == 3]
    if len(dense) != 1:
        return None
    scores, classes = _read_scores(outputs[dense[0]])
    names = _names({"boxes": boxes_name, "scores": dense[0]})
    form = {"format": "boxes_scores", **names, **_read_boxes(boxes, size_hw, "xyxy"), **scores}
    return Reading("detection", form, classes)


def _names(names: dict[str, str]) -> dict[str, Any]:
    return {} if all(name == own for name, own in names.items()) else {"names": names}


def _read_scores(scores: Tensor) -> tuple[dict[str, Any], int]:
    """Return what makes scores of (N, Q, C), and the number of classes without a background."""
    classes = scores.shape[-1]
    in_unit = bool(scores.min() >= 0) and bool(scores.max() <= 1 + SUM_TOLERANCE)
    sums = classes > 1 and bool(((scores.sum(-1) - 1).abs() <= SUM_TOLERANCE).float().mean() >= ALMOST_ALL)
    activation: dict[str, Any] = {}
    if not in_unit:
        activation["activation"] = Noted("sigmoid", f"from {float(scores.min()):.3g} to {float(scores.max()):.3g}")
    if not sums:
        return activation, classes
    best = scores.argmax(-1)
    place = "first" if float((best == 0).float().mean()) > 0.5 else "last"
    return {"background": assume(place, "scores of a box sum to 1, and most boxes have this class")}, classes - 1


def _rows(outputs: Outputs, size_hw: SizeHW) -> Reading | None:
    """Look for (N, Q, 6): box, score, class, of a head that has chosen its boxes."""
    for place, values in enumerate(outputs.values()):
        if values.dim() == 3 and values.shape[-1] == END_TO_END and _are_classes(values[..., 5]):
            if not bool(((values[..., 4] >= 0) & (values[..., 4] <= 1)).all()):
                continue
            index = {} if len(outputs) == 1 else {"index": place}
            form = {"format": "end_to_end", **_read_boxes(values[..., :4], size_hw, "xyxy"), **index}
            return Reading("detection", form, None, "YOLO")
    return None


def _are_classes(values: Tensor) -> bool:
    return bool((values == values.round()).all()) and bool(values.min() >= -1)


def _yolo(outputs: Outputs, size_hw: SizeHW) -> Reading | None:
    """Look for one tensor of three dimensions: rows or columns of box, objectness perhaps, and classes."""
    dense = [(place, values) for place, values in enumerate(outputs.values()) if values.dim() == 3]
    if not dense:
        return None
    place, values = max(dense, key=lambda found: found[1].numel())
    columns = values.shape[1] < values.shape[2]
    rows = values.transpose(1, 2) if columns else values
    if rows.shape[2] <= END_TO_END - 1:
        return None
    objectness, family, why = _find_objectness(rows.shape[1], columns, size_hw)
    output: dict[str, Any] = {
        "format": "yolo",
        "layout": Noted("columns" if columns else "rows", f"(N, {values.shape[1]}, {values.shape[2]})"),
        "objectness": assume(objectness, why),
    }
    if family == "YOLOX" and bool(rows[..., 2:4].min() < 0):
        output["strides"] = assume(list(STRIDES), "sizes below 0 are logarithms, and boxes offsets in cells")
    else:
        output |= _read_boxes(rows[..., :4], size_hw, "cxcywh")
    scores = rows[..., 4:]
    if bool(scores.min() < -SUM_TOLERANCE) or bool(scores.max() > 1 + SUM_TOLERANCE):
        output["activation"] = Noted("sigmoid", f"scores from {float(scores.min()):.3g} to {float(scores.max()):.3g}")
    if len(outputs) > 1:
        output["index"] = Noted(place, f"the largest of {len(outputs)} outputs")
    return Reading("detection", output, rows.shape[2] - 4 - objectness, family)


def _find_objectness(count: int, columns: bool, size_hw: SizeHW) -> tuple[bool, str, str]:
    """Return whether rows have an objectness, whose head it is, and why."""
    cells = sum((size_hw[0] // stride) * (size_hw[1] // stride) for stride in STRIDES)
    if count == ANCHORS * cells:
        return True, "YOLO", f"{count} boxes are three a cell, as YOLOv3 to v7 have them, with an objectness"
    if count == cells and columns:
        return False, "YOLO", f"{count} boxes are one a cell, in columns, as YOLOv8 and later have them, without one"
    if count == cells:
        return True, "YOLOX", f"{count} boxes are one a cell, in rows, as YOLOX has them, with one"
    return not columns, "YOLO", "rows mostly have one, columns mostly none"


def _read_boxes(boxes: Tensor, size_hw: SizeHW, usual: str) -> dict[str, Any]:
    """Tell corners from centre and size, and parts of the image from pixels, by the values of all boxes."""
    found: dict[str, Any] = {}
    first, second = boxes[..., :2], boxes[..., 2:]
    ordered = float((second > first).all(-1).float().mean())
    outside = float((first + second > torch.tensor([size_hw[1], size_hw[0]])).any(-1).float().mean())
    form = "xyxy" if ordered >= ALMOST_ALL else "cxcywh" if usual == "cxcywh" or ordered < 0.5 else usual
    if form != usual:
        found["box_format"] = assume(form, f"in {ordered:.0%} of the boxes the second corner is the larger")
    if float(boxes.flatten().abs().sort().values[int(0.99 * (boxes.numel() - 1))]) <= LARGEST_PART and outside == 0:
        found["normalized"] = assume(True, f"coordinates from {float(boxes.min()):.3g} to {float(boxes.max()):.3g}")
    return found


def _distributions(outputs: Outputs, size_hw: SizeHW) -> Reading | None:
    """Look for pairs of (N, cells, C) and (N, cells, 4 x B), one for each grid."""
    head = find_distribution_head(outputs, size_hw)
    if head is None:
        return None
    why = f"{len(head.grids)} grids of scores and of {head.bins} distances a side, as PicoDet has them"
    return Reading("detection", {"decode": Noted(FILE, why)}, head.classes, "GFL", {FILE: head.write_decode()})


RULES: tuple[Rule, ...] = (_detr, _distributions, _boxes_and_scores, _classes, _rows, _yolo)
