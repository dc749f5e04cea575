"""How the masks and keypoints of matched boxes differ from the reference's."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from vision_serving.results.instances import FIELDS, locate_keypoints, read_values
from vision_serving.results.masks import THRESHOLD
from vision_serving.results.postprocessing import Candidates

INSIDE = {"masks": THRESHOLD, "coefficients": 0.0}  # from which value on a cell of a mask is inside
OBSERVED = 20  # best boxes of an image: enough to compare, and to enlarge the heatmaps of hundreds takes minutes

Pairs = Iterable[tuple[int, int]]  # numbers of matched boxes in both observations


def observe_instances(outputs: Mapping[str, Tensor], index: int, best: Candidates) -> dict[str, Tensor]:
    """Observe image `index`'s best boxes, NaN where the model has none. Nothing for other models.

    `masks` (K, H, W), in or out on a grid over the box, or `image_masks` on one over the model's pixels. In parts of
    the box `keypoints` (K, P, 3), of x, y and score, or `corners` (K, 4, 2).
    """
    name = next((name for name in FIELDS if name in outputs), None)
    if name is None or best.rows is None:
        return {}
    best = best.take(torch.arange(min(OBSERVED, len(best.scores))))
    values = read_values(outputs, index, name, best)
    if name == "corners":
        corners = [_corners_of_box(v, box) for v, box in zip(values, best.boxes, strict=True) if v is not None]
        return {"corners": _stack(corners, torch.Size((4, 2)))}
    if name in INSIDE:
        masks = [None if value is None else (value >= INSIDE[name]).float() for value in values]
        if name == "coefficients":
            return {"image_masks": _stack(masks, outputs["prototypes"].shape[2:])}
        return {"masks": _stack(masks, outputs[name].shape[2:])}
    observed = [None if v is None else _parts_of_box(v, box) for v, box in zip(values, best.boxes, strict=True)]
    return {"keypoints": _stack(observed, torch.Size((outputs[name].shape[2], 3)))}


def _corners_of_box(corners: Tensor, box_xyxy: Tensor) -> Tensor:
    return (corners.reshape(4, 2) - box_xyxy[:2]) / (box_xyxy[2:] - box_xyxy[:2]).clamp(min=1)


def _parts_of_box(heatmaps: Tensor, box_xyxy: Tensor) -> Tensor:
    found = locate_keypoints(heatmaps, box_xyxy)
    points = (found[:, :2] - box_xyxy[:2]) / (box_xyxy[2:] - box_xyxy[:2]).clamp(min=1)
    return torch.cat((points, found[:, 2:].sigmoid()), dim=1)


def _stack(values: Sequence[Tensor | None], shape: torch.Size) -> Tensor:
    missing = torch.full(shape, torch.nan)
    return torch.stack([missing if value is None else value for value in values] or [missing])[: len(values)]


def measure_instances(images: Iterable[tuple[Mapping[str, Tensor], Mapping[str, Tensor], Pairs]]) -> dict[str, float]:
    """Measure all images: expected and found observation and which of their boxes match. Nothing for other models.

    mean_mask_iou      mean IoU of the masks of matched boxes, on the model's grid
    keypoint_distance  mean distance of their keypoints, or their corners, each side of the box being 1
    """
    measured: dict[str, list[float]] = {}
    for expected, found, pairs in images:
        for field, (name, compare) in MEASURES.items():
            if field in expected and field in found:
                values = [
                    compare(expected[field][row], found[field][column])
                    for row, column in pairs
                    if row < len(expected[field]) and column < len(found[field])
                ]
                measured.setdefault(name, []).extend(value for value in values if value == value)  # not NaN
    return {name: sum(values) / len(values) for name, values in measured.items() if values}


def _mask_iou(expected: Tensor, found: Tensor) -> float:
    shared, either = (expected * found).sum(), torch.maximum(expected, found).sum()
    return 1.0 if either == 0 else float(shared / either)


def _keypoint_distance(expected: Tensor, found: Tensor) -> float:
    return float((expected - found)[:, :2].norm(dim=-1).mean())


def _corner_distance(expected: Tensor, found: Tensor) -> float:
    """Return the mean distance in the best order: a box that is turned by a quarter more is the same one."""
    return min(float((expected - found.roll(turn, 0)).norm(dim=-1).mean()) for turn in range(4))


MEASURES: dict[str, tuple[str, Callable[[Tensor, Tensor], float]]] = {
    "masks": ("mean_mask_iou", _mask_iou),
    "image_masks": ("mean_mask_iou", _mask_iou),
    "corners": ("keypoint_distance", _corner_distance),
    "keypoints": ("keypoint_distance", _keypoint_distance),
}
