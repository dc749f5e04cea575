"""Which layouts of boxes would fit what a network gave, where the one that the recipe says does not."""

from collections.abc import Callable

import torch
from torch import Tensor

from vision_serving.graphs.outputs import OutputFormat, to_corners

LEAST_SIDE = 2.0  # model pixels
BEYOND = 0.25  # a box may reach so far beyond the picture, in parts of it
FITTING = 0.9  # share of the boxes that are possible

Layout = Callable[[Tensor], Tensor]  # (K, 4) as a network gives them -> x1, y1, x2, y2

LAYOUTS: dict[str, Layout] = {
    "xyxy (corners)": lambda boxes: boxes,
    "xywh (centre and size)": to_corners,
    "ltwh (left, top and size)": lambda boxes: torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), dim=1),
    "yxyx (corners, y first)": lambda boxes: boxes[:, [1, 0, 3, 2]],
}


def describe_fitting_layouts(boxes_xyxy: Tensor, size_hw: tuple[float, float], output: OutputFormat) -> str:
    """Say in a sentence or two which layouts fit. boxes_xyxy: (K, 4) in model pixels, as `output` read them."""
    fitting = find_fitting_layouts(undo_reading(boxes_xyxy, size_hw, output), size_hw)
    if fitting:
        return f"These layouts of the boxes would fit: {', '.join(fitting)}"
    return (
        "No usual layout of boxes fits (corners or centre and size, in pixels or relative), so the head is not "
        "decoded: its grid and strides, or anchors, are still missing. Decode it in the network's file"
    )


def undo_reading(boxes_xyxy: Tensor, size_hw: tuple[float, float], output: OutputFormat) -> Tensor:
    """Return the boxes (K, 4) as the network gave them."""
    boxes = boxes_xyxy
    if output.format == "detr" or output.normalized:
        boxes = boxes / _scales(size_hw)
    if output.format == "detr" or (output.format == "yolo" and output.boxes != "xyxy"):
        return torch.cat(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), dim=1)
    return boxes


def find_fitting_layouts(boxes: Tensor, size_hw: tuple[float, float]) -> list[str]:
    """Return the layouts in which nearly all boxes have an area and lie in the picture."""
    units = {"in model pixels": torch.ones(4), "relative to the picture": _scales(size_hw)}
    return [
        f"{name} {unit}"
        for unit, scales in units.items()
        for name, to_xyxy in LAYOUTS.items()
        if _share_possible(to_xyxy(boxes) * scales, size_hw) >= FITTING
    ]


def _share_possible(boxes_xyxy: Tensor, size_hw: tuple[float, float]) -> float:
    size = _scales(size_hw)[:2]
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    possible = (high - low >= LEAST_SIDE) & (low > -BEYOND * size) & (high < (1 + BEYOND) * size)
    return float(possible.all(dim=1).float().mean()) if len(boxes_xyxy) else 0.0


def _scales(size_hw: tuple[float, float]) -> Tensor:
    height, width = size_hw
    return torch.tensor([width, height, width, height])
