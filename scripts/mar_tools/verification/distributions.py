"""How the answers to the verification images are distributed: what the traffic of a served model is compared with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mar_tools.distributions import SeenImage, count_images
from mar_tools.images import read_image
from mar_tools.verification.observations import Observation
from vision_serving.config import ImageLimits
from vision_serving.handler import VisionHandler
from vision_serving.options import DetectionOptions, MultiLabelOptions, Options
from vision_serving.results.postprocessing import find_thresholds, score_classes
from vision_serving.worker.sample_records import MOST_SCORES, describe_picture

KEY = "distributions"  # of verification.json


def describe_answers(handler: VisionHandler, paths: Sequence[Path], found: Sequence[Observation]) -> dict[str, Any]:
    """Return the distributions, as verification.json has them.

    found: what the handler's artifact gave for these images. `all_classes`: whether an answer's every class counts, or
    the best one alone.
    """
    options = handler.read_options({})
    images = [_see(path, observation, options) for path, observation in zip(paths, found, strict=True)]
    return {"all_classes": isinstance(options, DetectionOptions | MultiLabelOptions), **count_images(images).to_json()}


def _see(path: Path, observation: Observation, options: Options) -> SeenImage:
    kind, width, height = describe_picture(read_image(path), ImageLimits())
    side = None if width is None or height is None else max(width, height)
    if "logits" in observation:
        return SeenImage(_read_classes(observation, options), longest_side=side, format=kind)
    if not isinstance(options, DetectionOptions) or options.tile_size:  # its answers come from tiles, these do not
        return SeenImage(longest_side=side, format=kind)
    scores, class_ids = observation["scores"], observation["class_ids"]
    kept = scores > find_thresholds(class_ids, options.score_threshold, options.class_thresholds)
    boxes = _pair(class_ids[kept], scores[kept])[: options.max_detections]
    return SeenImage(boxes[:MOST_SCORES], len(boxes), side, kind)


def _read_classes(observation: Observation, options: Options) -> list[tuple[int, float]]:
    if not isinstance(options, MultiLabelOptions):
        score, class_id = score_classes(observation["logits"]).max(dim=0)
        return [(int(class_id), float(score))]
    scores, class_ids = score_classes(observation["logits"], "sigmoid").sort(descending=True)
    kept = scores > observation["thresholds"][class_ids]
    return _pair(class_ids[kept], scores[kept])[: min(options.top_k, MOST_SCORES)]


def _pair(class_ids: Tensor, scores: Tensor) -> list[tuple[int, float]]:
    return list(zip(class_ids.tolist(), scores.tolist(), strict=True))
