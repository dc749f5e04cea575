"""How far a format moves the boxes that are answered: each beside what eager fp32 gives at the same place.

Two candidates of one object often have nearly the same score. Rounding decides which of them wins the NMS, and the
`iou` of the answers then compares two different candidates. Here each is compared with itself.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mar_tools.images import read_image
from vision_serving.config import ImageLimits
from vision_serving.handler import VisionHandler
from vision_serving.options import DetectionOptions
from vision_serving.pictures.decoding import decode_image
from vision_serving.results.postprocessing import measure_iou, read_candidates, select_detections

Outputs = Mapping[str, Tensor]


def measure_answered_iou(reference: VisionHandler, handler: VisionHandler, paths: Sequence[Path]) -> float | None:
    """Return the least IoU over the pictures, None for a detector that pads or sorts its outputs."""
    options = handler.read_options({})
    assert isinstance(options, DetectionOptions)
    least = 1.0
    for path in paths:
        image = decode_image(read_image(path), ImageLimits(), handler.config.colours)
        expected, found = (each.inference(each.preprocess([image])) for each in (reference, handler))
        if not have_same_places(expected, found):
            return None
        least = min(least, answered_iou(expected, found, options, handler.config.candidates_per_class))
    return least


def have_same_places(expected: Outputs, found: Outputs) -> bool:
    """Return whether a row of both is the same candidate: of dense outputs, one a place of the picture."""
    return "class_ids" not in expected and expected["boxes"].shape == found["boxes"].shape


def answered_iou(expected: Outputs, found: Outputs, options: DetectionOptions, per_class: int | None = None) -> float:
    """Return the least IoU of the boxes that one picture's outputs answer with those at their places; 1 without any."""
    candidates = read_candidates(found, 0, options.score_threshold, per_class, options.class_thresholds)
    best = select_detections(candidates, options)
    assert best.rows is not None
    if not len(best.rows):
        return 1.0
    overlaps = torch.from_numpy(measure_iou(best.boxes.numpy(), expected["boxes"][0].float()[best.rows].numpy()))
    return float(overlaps.nan_to_num().min())
