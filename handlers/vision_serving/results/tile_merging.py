"""Small objects in large images: one answer from those of an image and its tiles."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vision_serving.geometry import Region
from vision_serving.options import DetectionOptions
from vision_serving.predictions import Box, Detections, ImageSize
from vision_serving.results.postprocessing import Indices, keep_best, measure_iou

BORDER = 0.02  # share of a tile: a box that ends this close to a tile's border may go on beyond it
SAME_OBJECT = 0.5  # IoU above which boxes of two tiles are one object, for detectors without NMS too

Measure = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]


def merge_tiles(
    parts: Sequence[Detections],
    regions: Sequence[Region],
    options: DetectionOptions,
    border: float = BORDER,
    measure: Measure = measure_iou,
) -> Detections:
    """Return one answer of those for an image and its tiles, boxes xyxy in pixels of the image; best first.

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
    """Return whether a box reaches an end of its region that is none of the image."""
    width, height = region[2] - region[0], region[3] - region[1]
    return any(
        end != last and abs(side - end) <= border * length
        for side, end, last, length in zip(
            box, region, (0, 0, image.width, image.height), (width, height) * 2, strict=True
        )
    )
