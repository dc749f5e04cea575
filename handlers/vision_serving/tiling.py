"""Small objects in large images: which tiles an image is cut into, and one answer from those of its tiles."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from vision_serving.errors import PayloadTooLargeError
from vision_serving.options import DetectionOptions, Options
from vision_serving.postprocessing import Indices, keep_best, measure_iou
from vision_serving.predictions import Box, Detections, ImageSize
from vision_serving.preprocessing import Region, SizeHW

BORDER = 0.02  # share of a tile: a box that ends this close to a tile's border may go on beyond it
SAME_OBJECT = 0.5  # IoU above which boxes of two tiles are one object, for detectors without NMS too

Measure = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]


def is_tiled(options: Options) -> TypeGuard[DetectionOptions]:
    return isinstance(options, DetectionOptions) and options.tile_size > 0


def list_regions(source_hw: SizeHW, options: Options) -> list[Region]:
    """What the model is to see: the whole image, then its tiles, row by row, where it is larger than a tile."""
    height, width = source_hw
    whole = (0, 0, width, height)
    if not is_tiled(options):
        return [whole]
    tops, lefts = (_list_starts(side, options) for side in source_hw)
    size = options.tile_size
    tiles = [(x, y, min(x + size, width), min(y + size, height)) for y in tops for x in lefts]
    return [whole, *(tile for tile in tiles if tile != whole)]


def _list_starts(side: int, options: DetectionOptions) -> list[int]:
    """Where the tiles along a side begin: evenly, with at least the overlap asked for, the last one at the end."""
    room = side - options.tile_size
    if room <= 0:
        return [0]
    steps = math.ceil(room / (options.tile_size * (1 - options.tile_overlap)))
    return [round(room * step / steps) for step in range(steps + 1)]


def check_tile_count(source_hw: SizeHW, options: Options, max_tiles: int, images: int) -> None:
    """Raises PayloadTooLargeError for an image of more tiles than its share of what a request of so many may have."""
    if not is_tiled(options):
        return
    tops, lefts = (len(_list_starts(side, options)) for side in source_hw)
    if tops * lefts > max(1, max_tiles // images):  # an image that is one tile is not cut
        share = f" in a request, {max_tiles // images} for each of its {images} images" if images > 1 else ""
        raise PayloadTooLargeError(
            f"an image of {source_hw[1]} x {source_hw[0]} pixels has {tops * lefts} tiles of {options.tile_size} with "
            f"an overlap of {options.tile_overlap:g}; the limit is {max_tiles}{share}; choose a larger tile_size"
        )


def merge_tiles(
    parts: Sequence[Detections],
    regions: Sequence[Region],
    options: DetectionOptions,
    border: float = BORDER,
    measure: Measure = measure_iou,
) -> Detections:
    """One answer of those for an image and its tiles, boxes xyxy in pixels of the image; best first.

    A box that a tile's border cuts is left to the tile, or the whole image, that sees beyond it. What two regions both
    see is told once, by the better score; boxes of one region are left to the NMS that they have been through.
    measure: how much two boxes overlap. examples/digits_detection/measure_tiling.py compares others.
    """
    found = [
        (detection, number)
        for number, (part, region) in enumerate(zip(parts, regions, strict=True))
        for detection in part.detections
        if not _is_cut(detection.box, region, part.image, border)
    ]
    boxes = np.array([detection.box for detection, _ in found], dtype=np.float32).reshape(-1, 4)
    numbers = np.array([number for _, number in found], dtype=np.int64)
    agnostic = options.nms == "class_agnostic"
    class_ids = np.array([0 if agnostic else detection.class_id for detection, _ in found], dtype=np.int64)

    def overlapping(rows: Indices, columns: Indices) -> NDArray[np.bool_]:
        same: NDArray[np.bool_] = measure(boxes[rows, None], boxes[None, columns]) > SAME_OBJECT
        same &= class_ids[rows, None] == class_ids[None, columns]
        same &= numbers[rows, None] != numbers[None, columns]
        return same

    scores = np.array([detection.score for detection, _ in found], dtype=np.float32)
    kept = keep_best(scores, overlapping, options.max_detections)
    return replace(parts[0], detections=tuple(found[index][0] for index in kept.tolist()))


def _is_cut(box: Box, region: Region, image: ImageSize, border: float) -> bool:
    """Whether a box reaches an end of its region that is none of the image."""
    width, height = region[2] - region[0], region[3] - region[1]
    return any(
        end != last and abs(side - end) <= border * length
        for side, end, last, length in zip(
            box, region, (0, 0, image.width, image.height), (width, height) * 2, strict=True
        )
    )
