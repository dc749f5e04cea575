"""How the masks and keypoints of matched boxes differ from the reference's."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from vision_serving.results.instances import locate_keypoints, take_values
from vision_serving.results.masks import THRESHOLD
from vision_serving.results.postprocessing import Candidates

OBSERVED = 20  # best boxes of an image: enough to compare, and to enlarge the heatmaps of hundreds takes minutes

Pairs = Iterable[tuple[int, int]]  # numbers of matched boxes in both observations


def observe_instances(outputs: Mapping[str, Tensor], index: int, best: Candidates) -> dict[str, Tensor]:
    """Observe image `index`'s best boxes, NaN where the model has none: `masks` (K, M, M), in or out on the grid of
    the box, or `keypoints` (K, P, 2), in parts of the box. Nothing for other models.
    """
    name = next((name for name in ("masks", "heatmaps") if name in outputs), None)
    if name is None or best.rows is None:
        return {}
    best = best.take(torch.arange(min(OBSERVED, len(best.scores))))
    assert best.rows is not None
    values = take_values(outputs[name][index], outputs["instances"][index], best.rows)
    if name == "masks":
        observed = [None if value is None else (value >= THRESHOLD).float() for value in values]
        return {"masks": _stack(observed, outputs[name].shape[2:])}
    observed = [None if v is None else _parts_of_box(v, box) for v, box in zip(values, best.boxes, strict=True)]
    return {"keypoints": _stack(observed, torch.Size((outputs[name].shape[2], 2)))}


def _parts_of_box(heatmaps: Tensor, box_xyxy: Tensor) -> Tensor:
    points = locate_keypoints(heatmaps, box_xyxy)[:, :2]
    return (points - box_xyxy[:2]) / (box_xyxy[2:] - box_xyxy[:2]).clamp(min=1)


def _stack(values: Sequence[Tensor | None], shape: torch.Size) -> Tensor:
    missing = torch.full(shape, torch.nan)
    return torch.stack([missing if value is None else value for value in values] or [missing])[: len(values)]


def measure_instances(images: Iterable[tuple[Mapping[str, Tensor], Mapping[str, Tensor], Pairs]]) -> dict[str, float]:
    """Measure all images: expected and found observation and which of their boxes match. Nothing for other models.

    mean_mask_iou      mean IoU of the masks of matched boxes, on the model's grid
    keypoint_distance  mean distance of their keypoints, each side of the box being 1
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


MEASURES: dict[str, tuple[str, Callable[[Tensor, Tensor], float]]] = {
    "masks": ("mean_mask_iou", _mask_iou),
    "keypoints": ("keypoint_distance", lambda expected, found: float((expected - found).norm(dim=-1).mean())),
}
