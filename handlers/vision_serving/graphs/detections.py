"""What a detector gives, in its own words, becomes boxes in model pixels and scores of its classes.

Each format is split into what is found of each candidate; `finish` does what is alike for all of them. Everything here
is traced and exported: no value decides a shape.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from vision_serving.errors import ConfigError
from vision_serving.geometry import SizeHW
from vision_serving.graphs.outputs import DECODED, FORMS, ROW, BoxForm, OutputFormat

Values = tuple[Tensor, ...]


@dataclass(frozen=True)
class Found:
    """Of each candidate: boxes (N, Q, 4) in the network's form, turned ones (N, Q, 5) or (N, Q, 8).

    scores: (N, Q, C), or (N, Q) with class_ids (N, Q). more: other outputs of the artifact.
    """

    boxes: Tensor
    scores: Tensor
    class_ids: Tensor | None = None
    more: Mapping[str, Tensor] = field(default_factory=dict)


def split_boxes_scores(values: Values, output: OutputFormat, _: SizeHW) -> Found:
    return Found(values[0], activate(values[1], output))


def split_boxes_scores_labels(values: Values, output: OutputFormat, _: SizeHW) -> Found:
    labels, boxes, scores = values
    return Found(boxes, activate(scores, output), labels)


def split_end_to_end(values: Values, output: OutputFormat, _: SizeHW) -> Found:
    """Split rows of box, score, class, then what else there is: an angle, or coefficients of masks."""
    rows, order = as_rows(values[0], output), output.order or ROW
    widths = [count_coordinates(output) if part == "box" else 1 for part in order]
    extra = count_extra(values, output)
    if is_known(rows.shape[-1]) and rows.shape[-1] != sum(widths) + extra:
        raise ConfigError(
            f"output format 'end_to_end' needs rows of {sum(widths) + extra} values ({', '.join(order)}"
            f"{_name_extra(output, extra)}), got {rows.shape[-1]}"
        )
    starts = dict(zip(order, accumulate(widths, initial=0), strict=False))
    boxes = rows[..., starts["box"] : starts["box"] + count_coordinates(output)]
    found = Found(boxes, rows[..., starts["score"]], rows[..., starts["class"]])
    return with_extra(found, rows[..., sum(widths) :], values, output)


def split_yolo(values: Values, output: OutputFormat, size_hw: SizeHW) -> Found:
    """Split rows of box, an objectness perhaps, class scores, then what else there is."""
    rows = as_rows(values[0], output)
    coordinates, extra = count_coordinates(output), count_extra(values, output)
    first_class, end = coordinates + bool(output.objectness), rows.shape[-1] - extra
    if is_known(rows.shape[-1]) and end <= first_class:
        raise ConfigError(
            f"output layout {output.layout!r}: {rows.shape[-1]} values a box leave no class score behind "
            f"{first_class}{_name_extra(output, extra)}; is the layout "
            f"{'rows' if output.layout == 'columns' else 'columns'!r}?"
        )
    boxes, scores = rows[..., :coordinates], activate(rows[..., coordinates:end], output)
    if output.strides:
        boxes = decode_grids(boxes, output.strides, size_hw)
    if output.objectness:
        scores = scores[..., :1] * scores[..., 1:]
    return with_extra(Found(boxes, scores), rows[..., end:], values, output)


def split_detr(values: Values, output: OutputFormat, _: SizeHW) -> Found:
    logits, boxes = values
    scores = activate(logits, output)
    if output.activation == "softmax":
        scores = scores[..., :-1]
        class_ids = torch.arange(scores.shape[-1], device=scores.device)
        scores = scores * (class_ids == scores.argmax(dim=-1, keepdim=True))
    return Found(boxes, scores)


SPLITS: dict[str, Callable[[Values, OutputFormat, SizeHW], Found]] = {
    "boxes_scores": split_boxes_scores,
    "boxes_scores_labels": split_boxes_scores_labels,
    "end_to_end": split_end_to_end,
    "yolo": split_yolo,
    "detr": split_detr,
}


def check_decoded(found: Any, output: OutputFormat) -> Found:
    """Check what a file's `decode` gives: boxes and scores, or one score a box with class_ids. Raises ConfigError."""
    expected = (
        "`decode` returns {'boxes': (N, Q, 4), 'scores': (N, Q, C)}, or {'boxes': (N, Q, 4), 'scores': (N, Q), "
        "'class_ids': (N, Q)}"
    )
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ConfigError(f"{expected}; it gave {type(found).__name__}")
    shapes = {name: tuple(value.shape) for name, value in found.items()}
    dims = {name: value.dim() for name, value in found.items()}
    if dims not in ({"boxes": 3, "scores": 3}, {"boxes": 3, "scores": 2, "class_ids": 2}):
        raise ConfigError(f"{expected}; it gave {shapes}")
    return Found(found["boxes"], activate(found["scores"], output), found.get("class_ids"))


def finish(found: Found, output: OutputFormat, size_hw: SizeHW) -> dict[str, Tensor]:
    """Leave the background out, and bring boxes to xyxy in model pixels; `corners` (N, Q, 8) of turned ones."""
    form = FORMS[output.format] if output.format else DECODED
    expected = COORDINATES[output.box_format or form.box_form]
    if is_known(found.boxes.shape[-1]) and found.boxes.shape[-1] != expected:
        raise ConfigError(
            f"a box has {found.boxes.shape[-1]} numbers; `box_format` {output.box_format!r} has {expected}"
        )
    found = leave_background_out(found, output)
    boxes = TO_PIXELS[output.box_format or form.box_form](found.boxes)
    if output.normalized or output.format == "detr":
        boxes = boxes * boxes.new_tensor([size_hw[1], size_hw[0]] * (boxes.shape[-1] // 2))
    more = dict(found.more)
    if output.is_oriented:
        points = boxes.reshape(*boxes.shape[:2], 4, 2)
        more["corners"], boxes = boxes, torch.cat((points.amin(dim=2), points.amax(dim=2)), dim=-1)
    class_ids = {} if found.class_ids is None else {"class_ids": found.class_ids}
    return {"boxes": boxes, "scores": found.scores, **class_ids, **more}


def leave_background_out(found: Found, output: OutputFormat) -> Found:
    """Rows of no class, whose number is below 0, get a score of 0: exporters fill up with them."""
    if found.class_ids is None:
        places = {"first": slice(1, None), "last": slice(None, -1), None: slice(None)}
        return replace(found, scores=found.scores[..., places[output.background]])
    class_ids = found.class_ids.round() if found.class_ids.is_floating_point() else found.class_ids
    class_ids = class_ids.long() - (1 if output.background == "first" else 0)
    is_class = class_ids >= 0
    return replace(found, scores=found.scores * is_class, class_ids=class_ids * is_class)


def activate(values: Tensor, output: OutputFormat) -> Tensor:
    if output.activation == "sigmoid":
        return values.sigmoid()
    return values.softmax(dim=-1) if output.activation == "softmax" else values


def as_rows(values: Tensor, output: OutputFormat) -> Tensor:
    return values.transpose(1, 2) if output.layout == "columns" else values


def count_coordinates(output: OutputFormat) -> int:
    """Return how many numbers of a row begin it as its box; an angle stands at its end."""
    return 8 if output.box_format == "corners" else 4


def count_extra(values: Values, output: OutputFormat) -> int:
    """Return how many numbers end a row: the coefficients of a mask, or an angle."""
    return values[1].shape[1] if output.masks else int(output.box_format == "xywhr")


def _name_extra(output: OutputFormat, count: int) -> str:
    return f", {count} coefficients of masks" if output.masks else ", angle" if output.box_format == "xywhr" else ""


def with_extra(found: Found, extra: Tensor, values: Values, output: OutputFormat) -> Found:
    """Add what ends a row to what it belongs to."""
    if output.masks:
        return replace(found, more={"coefficients": extra, "prototypes": values[1]})
    if output.box_format == "xywhr":
        return replace(found, boxes=torch.cat((found.boxes, extra), dim=-1))
    return found


def decode_grids(boxes: Tensor, strides: tuple[int, ...], size_hw: SizeHW) -> Tensor:
    """Decode boxes (N, Q, 4): centres in cells from each cell's corner, logarithms of sizes in cells; row by row."""
    height, width = size_hw
    cells = [(y, x, stride) for stride in strides for y in range(height // stride) for x in range(width // stride)]
    if is_known(boxes.shape[1]) and boxes.shape[1] != len(cells):
        raise ConfigError(
            f"output `strides` {list(strides)} of {height} x {width} (height x width) are {len(cells)} cells; the "
            f"network gave {boxes.shape[1]} boxes"
        )
    grid = boxes.new_tensor(cells)
    offsets, scale = grid[:, [1, 0]], grid[:, 2:]
    return torch.cat(((boxes[..., :2] + offsets) * scale, boxes[..., 2:].exp() * scale), dim=-1)


def swap_axes(boxes: Tensor) -> Tensor:
    """Turn corners (..., 4) of y and x into those of x and y, and back."""
    return torch.cat((boxes[..., 1:2], boxes[..., 0:1], boxes[..., 3:4], boxes[..., 2:3]), dim=-1)


def from_corner_and_size(boxes: Tensor) -> Tensor:
    return torch.cat((boxes[..., :2], boxes[..., :2] + boxes[..., 2:]), dim=-1)


def from_centre_and_size(boxes: Tensor) -> Tensor:
    centres, halves = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((centres - halves, centres + halves), dim=-1)


def from_angles(boxes: Tensor) -> Tensor:
    """Turn (..., 5) of centre, size and angle into corners (..., 8), clockwise from the box's own top left one."""
    x, y, width, height, angle = boxes.unbind(-1)
    across_x, across_y = width / 2 * angle.cos(), width / 2 * angle.sin()
    along_x, along_y = -height / 2 * angle.sin(), height / 2 * angle.cos()
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    points = [(x + i * across_x + j * along_x, y + i * across_y + j * along_y) for i, j in signs]
    return torch.stack([number for point in points for number in point], dim=-1)


COORDINATES: dict[BoxForm, int] = {"xyxy": 4, "yxyx": 4, "xywh": 4, "cxcywh": 4, "xywhr": 5, "corners": 8}
TO_PIXELS: dict[BoxForm, Callable[[Tensor], Tensor]] = {
    "xyxy": lambda boxes: boxes,
    "yxyx": swap_axes,
    "xywh": from_corner_and_size,
    "cxcywh": from_centre_and_size,
    "xywhr": from_angles,
    "corners": lambda boxes: boxes,
}


def is_known(size: Any) -> bool:
    """Return whether it is a number, and none that a tracer follows."""
    return isinstance(size, int)
