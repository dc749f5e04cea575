"""A model's mask, a small grid over a box or the whole image, in the pixels of the source image, as JSON can carry it.

Of a grid over a box, the pixels are those of torchvision.models.detection.roi_heads.paste_masks_in_image at a threshold
of 0.5. Of a grid over the image, they are those of the enlarged grid, cut off at the box. What lies outside of the box
and the image is never computed.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vision_serving.geometry import SizeHW
from vision_serving.predictions import Polygons, RunLengths

Crossing = tuple[str, int, int]  # of the outline and the line between two neighbours of the grid

PADDING = 1  # cells of zeros around the grid, so that masks can end before the edge of their box
THRESHOLD = 0.5
OUTSIDE = -1.0  # a logit
DIGIT_BITS = 5  # of a number in COCO's text, least significant digit first
MAX_DIGITS = 7  # 35 bits: more pixels than any image has

# Which sides of a cell the outline passes, from and to, with the inside on its right, by the corners that are inside:
# 8 top left, 4 top right, 2 bottom right, 1 bottom left.
PASSAGES: dict[int, tuple[tuple[str, str], ...]] = {
    1: (("left", "bottom"),),
    2: (("bottom", "right"),),
    3: (("left", "right"),),
    4: (("right", "top"),),
    5: (("right", "top"), ("left", "bottom")),
    6: (("bottom", "top"),),
    7: (("left", "top"),),
    8: (("top", "left"),),
    9: (("top", "bottom"),),
    10: (("top", "left"), ("bottom", "right")),
    11: (("top", "right"),),
    12: (("right", "left"),),
    13: (("right", "bottom"),),
    14: (("bottom", "left"),),
}


@dataclass(frozen=True)
class PlacedMask:
    """A grid (H, W) with a margin that is outside, stretched over the pixels [x, x + width) x [y, y + height).

    threshold: from which on a value is inside. within: (x1, y1, x2, y2) in pixels, where the mask ends.
    """

    grid: Tensor
    x: float
    y: float
    width: float
    height: float
    within: tuple[int, int, int, int]
    threshold: float = THRESHOLD


def place_mask(mask: Tensor, box_xyxy: Tensor) -> PlacedMask:
    """Place a mask (M, M) of probabilities. box_xyxy: (4,) in source pixels; it may reach beyond the image."""
    scale = (mask.shape[-1] + 2 * PADDING) / mask.shape[-1]
    centre, half = (box_xyxy[2:] + box_xyxy[:2]) * 0.5, (box_xyxy[2:] - box_xyxy[:2]) * 0.5 * scale
    x1, y1, x2, y2 = torch.cat((centre - half, centre + half)).long().tolist()
    width, height = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
    within = (x1, y1, x1 + width, y1 + height)
    return PlacedMask(functional.pad(mask, (PADDING,) * 4), x1, y1, width, height, within)


def cut_mask(logits: Tensor, grid_xyxy: Tensor, box_xyxy: Tensor) -> PlacedMask:
    """Cut the cells of a box, and their neighbours, out of a grid (H, W) of logits over `grid_xyxy`.

    Both in source pixels. A pixel is the box's where its centre is in it.
    """
    size = logits.new_tensor(logits.shape).flip(0)  # columns, rows
    cell = (grid_xyxy[2:] - grid_xyxy[:2]) / size
    first, last = ((box_xyxy.reshape(2, 2) - grid_xyxy[:2]) / cell - 0.5).floor().long().tolist()
    columns, rows = (torch.arange(start, max(start, stop) + 2) for start, stop in zip(first, last, strict=True))
    found = logits[rows.clamp(0, logits.shape[0] - 1)[:, None], columns.clamp(0, logits.shape[1] - 1)]
    x, y = (grid_xyxy[:2] + (grid_xyxy.new_tensor(first) - PADDING) * cell).tolist()
    width, height = (cell * cell.new_tensor([len(columns) + 2 * PADDING, len(rows) + 2 * PADDING])).tolist()
    x1, y1, x2, y2 = (box_xyxy.double() - 0.5).ceil().long().tolist()
    padded = functional.pad(found, (PADDING,) * 4, value=OUTSIDE)
    return PlacedMask(padded, x, y, width, height, (x1, y1, x2, y2), threshold=0.0)


def encode_rle(placed: PlacedMask, image_hw: SizeHW) -> RunLengths:
    """Encode COCO's compressed run lengths of the whole image, column by column, as pycocotools writes them."""
    height, width = image_hw
    left, right = (min(max(x, 0), width) for x in placed.within[::2])
    top, bottom = (min(max(y, 0), height) for y in placed.within[1::2])
    across = _stretch(torch.arange(left, right) - placed.x, placed.width, placed.grid.shape[1])
    along = _stretch(torch.arange(top, bottom) - placed.y, placed.height, placed.grid.shape[0])
    columns = (across @ placed.grid.T @ along.T >= placed.threshold).numpy()
    return RunLengths(size=image_hw, counts=compress_counts(_count_runs(columns, left, top, image_hw)))


def _stretch(pixels: Tensor, size: float, cells: int) -> Tensor:
    """Return weights (P, cells) of pixels (P,) of `size`, bilinear without aligned corners."""
    centres = (pixels.double() + 0.5) * (cells / size) - 0.5
    distances = centres.clamp(0, cells - 1).unsqueeze(1) - torch.arange(cells)
    return (1 - distances.abs()).clamp(min=0).float()


def _count_runs(columns: NDArray[np.bool_], left: int, top: int, image_hw: SizeHW) -> NDArray[np.int64]:
    """Count the runs outside, inside, outside ... down an image's columns. columns: (w, h) from (top, left) on."""
    height, width = image_hw
    framed = np.pad(columns, ((0, 0), (1, 1)))
    x, y = (framed[:, 1:] != framed[:, :-1]).nonzero()
    changes, times = np.unique((left + x) * height + top + y, return_counts=True)
    changes = changes[times == 1]  # a run that ends where the next column's begins goes on
    counts: NDArray[np.int64] = np.diff(changes, prepend=0, append=height * width)
    return counts[:-1] if counts[-1] == 0 else counts


def compress_counts(counts: NDArray[np.int64]) -> str:
    """Write COCO's text: 5 bits a character. From the fourth on it is the difference to the count two before."""
    values = counts.copy()
    values[3:] -= counts[1:-2]
    shifted = values[:, None] >> (DIGIT_BITS * np.arange(MAX_DIGITS))
    digits, rest = shifted & 31, shifted >> DIGIT_BITS
    more = np.where(digits & 16, rest != -1, rest != 0)  # the last digit's highest bit is the sign
    present = np.ones_like(more)
    present[:, 1:] = np.logical_and.accumulate(more[:, :-1], axis=1)
    characters: NDArray[np.uint8] = (digits + 32 * more + 48)[present].astype(np.uint8)
    return characters.tobytes().decode("ascii")


def trace_polygons(placed: PlacedMask, image_hw: SizeHW) -> Polygons:
    """Outline a mask's parts, clockwise [x1, y1, x2, y2, ...], without holes, which COCO's polygons lack."""
    height, width = image_hw
    grid = placed.grid.double().numpy()
    rows, columns = grid.shape
    low, high = np.clip(placed.within[:2], 0, (width, height)), np.clip(placed.within[2:], 0, (width, height))
    outlines = []
    for crossings in _follow(_find_passages(grid >= placed.threshold)):
        points = np.array([_locate(crossing, grid, placed.threshold) for crossing in crossings])
        points = (points + 0.5) * (placed.width / columns, placed.height / rows) + (placed.x, placed.y)
        points = points.clip(low, high).round(2)
        if _signed_area(points) > 0:
            outlines.append(tuple(points.ravel().tolist()))
    return tuple(outlines)


def _find_passages(inside: NDArray[np.bool_]) -> dict[Crossing, Crossing]:
    """Return where the outline goes on from each of its crossings."""
    corners = 8 * inside[:-1, :-1] + 4 * inside[:-1, 1:] + 2 * inside[1:, 1:] + 1 * inside[1:, :-1]
    successors = {}
    for row, column in np.argwhere((corners > 0) & (corners < 15)).tolist():
        sides = {
            "top": ("across", row, column),
            "bottom": ("across", row + 1, column),
            "left": ("down", row, column),
            "right": ("down", row, column + 1),
        }
        for start, end in PASSAGES[int(corners[row, column])]:
            successors[sides[start]] = sides[end]
    return successors


def _follow(successors: dict[Crossing, Crossing]) -> list[list[Crossing]]:
    """Return the closed rings; empties `successors`."""
    rings = []
    while successors:
        first, crossing = successors.popitem()
        ring = [first]
        while crossing != first:
            ring.append(crossing)
            crossing = successors.pop(crossing)
        rings.append(ring)
    return rings


def _locate(crossing: Crossing, grid: NDArray[np.float64], threshold: float) -> tuple[float, float]:
    """Locate x and y in cells of the grid, linear between the two neighbours."""
    direction, row, column = crossing
    before = grid[row, column]
    after = grid[row, column + 1] if direction == "across" else grid[row + 1, column]
    part = float((threshold - before) / (after - before))
    return (column + part, row) if direction == "across" else (column, row + part)


def _signed_area(points: NDArray[np.float64]) -> float:
    """Return the area of a ring (P, 2) of x and y; positive for clockwise, as y grows downwards."""
    x, y = points.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)
