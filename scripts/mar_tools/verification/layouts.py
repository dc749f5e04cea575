"""Which layouts of boxes would fit what a network gave, where the one that the recipe says does not."""

from collections.abc import Callable

import torch
from torch import Tensor

from vision_serving.graphs.detections import TO_PIXELS, swap_axes
from vision_serving.graphs.outputs import FORMS, BoxForm, OutputFormat

LEAST_SIDE = 2.0  # model pixels
BEYOND = 0.25  # a box may reach so far beyond the picture, in parts of it
FITTING = 0.9  # share of the boxes that are possible

Change = Callable[[Tensor], Tensor]  # of boxes (K, 4)


def _to_centres(boxes: Tensor) -> Tensor:
    return torch.cat(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), dim=1)


# `box_format` -> from xyxy back to what a network gives, of which TO_PIXELS made it.
FROM_PIXELS: dict[BoxForm, Change] = {
    "xyxy": lambda boxes: boxes,
    "yxyx": swap_axes,
    "cxcywh": _to_centres,
    "xywh": lambda boxes: torch.cat((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), dim=1),
}


def describe_fitting_layouts(boxes_xyxy: Tensor, size_hw: tuple[float, float], output: OutputFormat) -> str:
    """Say in a sentence or two which layouts fit. boxes_xyxy: (K, 4) in model pixels, as `output` read them."""
    raw = undo_reading(boxes_xyxy, size_hw, output)
    fitting = [] if raw is None else find_fitting_layouts(raw, size_hw)
    if fitting:
        return f"These layouts would fit, under `output`: {', or '.join(fitting)}"
    return (
        "No usual layout of boxes fits (corners, or a corner or the centre and a size, in pixels or relative). So the "
        "head is not decoded: its grid or anchors are missing. Give `strides` for a YOLOX head, or `decode: FILE.py`"
    )


def undo_reading(boxes_xyxy: Tensor, size_hw: tuple[float, float], output: OutputFormat) -> Tensor | None:
    """Return the boxes (K, 4) as the network gave them, None where that is no other layout of them."""
    name = name_form(output)
    if name not in FROM_PIXELS or output.strides is not None:
        return None
    return FROM_PIXELS[name](boxes_xyxy / _scales(size_hw) if is_relative(output) else boxes_xyxy)


def is_relative(output: OutputFormat) -> bool:
    """Return whether the network gives boxes as parts of the picture."""
    return output.format == "detr" or bool(output.normalized)


def name_form(output: OutputFormat) -> BoxForm:
    return output.box_format or (FORMS[output.format].box_form if output.format else "xyxy")


def find_fitting_layouts(boxes: Tensor, size_hw: tuple[float, float]) -> list[str]:
    """Return the layouts, as a recipe has them, in which nearly all boxes have an area and lie in the picture."""
    units = {"": torch.ones(4), ", normalized: true": _scales(size_hw)}
    fitting = [
        (name, unit)
        for unit, scales in units.items()
        for name in FROM_PIXELS
        if _share_possible(TO_PIXELS[name](boxes) * scales, size_hw) >= FITTING
    ]
    # Where corners fit as x and y, they nearly always fit as y and x too, which says nothing.
    return [f"`box_format: {name}{unit}`" for name, unit in fitting if name != "yxyx" or ("xyxy", unit) not in fitting]


def _share_possible(boxes_xyxy: Tensor, size_hw: tuple[float, float]) -> float:
    size = _scales(size_hw)[:2]
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    possible = (high - low >= LEAST_SIDE) & (low > -BEYOND * size) & (high < (1 + BEYOND) * size)
    return float(possible.all(dim=1).float().mean()) if len(boxes_xyxy) else 0.0


def _scales(size_hw: tuple[float, float]) -> Tensor:
    height, width = size_hw
    return torch.tensor([width, height, width, height])
