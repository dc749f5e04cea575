"""Small objects in large images: which tiles an image is cut into, and one answer from those of its tiles."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vision_serving.config import DetectionOptions, Options
from vision_serving.errors import PayloadTooLargeError
from vision_serving.postprocessing import Indices, intersect, keep_best, measure_areas
from vision_serving.predictions import Detections
from vision_serving.preprocessing import Region, SizeHW

BORDER = 0.01  # share of a tile: a box that ends this close to a tile's border may go on beyond it
SAME_OBJECT = 0.5  # share of the smaller of two boxes that both cover: more, and two tiles see one object


def is_tiled(options: Options) -> bool:
    return isinstance(options, DetectionOptions) and options.tile_size > 0


def list_regions(source_hw: SizeHW, options: Options) -> list[Region]:
    """What the model is to see: the whole image, then its tiles, row by row, where it is larger than a tile."""
    height, width = source_hw
    whole = (0, 0, width, height)
    if not isinstance(options, DetectionOptions) or options.tile_size == 0:
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
    if not isinstance(options, DetectionOptions) or options.tile_size == 0:
        return
    tops, lefts = (len(_list_starts(side, options)) for side in source_hw)
    if tops * lefts > max_tiles // images:
        share = f" in a request, {max_tiles // images} for each of its {images} images" if images > 1 else ""
        raise PayloadTooLargeError(
            f"an image of {source_hw[1]} x {source_hw[0]} pixels has {tops * lefts} tiles of {options.tile_size} with "
            f"an overlap of {options.tile_overlap:g}; the limit is {max_tiles}{share}; choose a larger tile_size"
        )


def merge_tiles(parts: Sequence[Detections], regions: Sequence[Region], options: DetectionOptions) -> Detections:
    """One answer of those of an image and its tiles, boxes xyxy in pixels of the image; best first.

    A box that a tile's border cuts is left to the tile, or the whole image, that sees beyond it. What two regions both
    see is told once, by the better score; boxes of one region are left to the NMS that they have been through.
    """
    found = [
        (detection, number)
        for number, (part, region) in enumerate(zip(parts, regions, strict=True))
        for detection in part.detections
        if not _is_cut(detection.box, region, parts[0])
    ]
    detections = [detection for detection, _ in found]
    boxes = np.array([detection.box for detection in detections], dtype=np.float32).reshape(-1, 4)
    numbers = np.array([number for _, number in found], dtype=np.int64)
    class_ids = np.array([detection.class_id for detection in detections], dtype=np.int64)
    if options.nms == "class_agnostic":
        class_ids[:] = 0

    def overlapping(rows: Indices, columns: Indices) -> NDArray[np.bool_]:
        first, second = boxes[rows, None], boxes[None, columns]
        smaller = np.minimum(measure_areas(first), measure_areas(second))
        same: NDArray[np.bool_] = intersect(first, second) > SAME_OBJECT * smaller
        same &= class_ids[rows, None] == class_ids[None, columns]
        same &= numbers[rows, None] != numbers[None, columns]
        return same

    scores = np.array([detection.score for detection in detections], dtype=np.float32)
    kept = keep_best(scores, overlapping, options.max_detections)
    return replace(parts[0], detections=tuple(detections[index] for index in kept.tolist()))


def _is_cut(box: tuple[float, float, float, float], region: Region, whole: Detections) -> bool:
    """Whether a box reaches a border of its tile that is none of the image."""
    limits = (0, 0, whole.image.width, whole.image.height)
    sides = (region[2] - region[0], region[3] - region[1])
    return any(
        border != limit and abs(end - border) <= BORDER * side
        for end, border, limit, side in zip(box, region, limits, sides * 2, strict=True)
    )
