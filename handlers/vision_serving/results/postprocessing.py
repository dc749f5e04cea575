"""Named outputs of a backend -> the best classes or boxes of each image. Plain tensor functions."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision_serving.errors import InferenceError
from vision_serving.options import Activation, DetectionOptions, MultiLabelOptions

NMS_BLOCK = 128  # boxes compared at once: one block for most pictures, and little memory for tens of thousands
SOFT_SIGMA = 0.5  # the paper's
SCORE_SLACK = 0.01  # beyond [0, 1]: what rounding makes of a score, in int8 too
FLOAT32_DIGITS = 7
NO_THRESHOLDS: Mapping[int | str, float] = MappingProxyType({})

Indices = NDArray[np.int64]
Overlap = Callable[[Indices, Indices], NDArray[np.float32]]
Overlapping = Callable[[Indices, Indices], NDArray[np.bool_]]  # (rows, columns): whether two boxes overlap too much


def top_k_classes(logits: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Return probabilities and class ids (k,) of one image's logits (C,), best first; k = min(top_k, C)."""
    scores, class_ids = score_classes(logits).topk(min(top_k, logits.shape[-1]))
    return scores, class_ids


def score_classes(logits: Tensor, activation: Activation | None = None) -> Tensor:
    """Return the scores in [0, 1] of logits (..., C): `softmax` where nothing else is said."""
    return logits.float().sigmoid() if activation == "sigmoid" else logits.float().softmax(dim=-1)


def best_labels(logits: Tensor, options: MultiLabelOptions) -> tuple[Tensor, Tensor]:
    """Return scores and class ids (k,) of one image's logits (C,) above their thresholds, best first; NaN where one is.

    The `class_thresholds` have class ids, see `labels.thresholds_by_class_id`.
    """
    scores = score_classes(logits, "sigmoid")
    thresholds = find_thresholds(torch.arange(len(scores)), options.score_threshold, options.class_thresholds)
    kept = (~(scores <= thresholds)).nonzero().squeeze(1)
    best, order = scores[kept].topk(min(options.top_k, len(kept)))
    return best, kept[order]


@dataclass(frozen=True)
class Candidates:
    """boxes: (K, 4) xyxy in model pixels. scores: (K,). class_ids: (K,). rows: (K,) their places in the outputs.

    corners: (K, 8) of turned boxes, which overlap by these.
    """

    boxes: Tensor
    scores: Tensor
    class_ids: Tensor
    rows: Tensor | None = None
    corners: Tensor | None = None

    def take(self, indices: Tensor) -> "Candidates":
        rows, corners = (None if values is None else values[indices] for values in (self.rows, self.corners))
        return Candidates(self.boxes[indices], self.scores[indices], self.class_ids[indices], rows, corners)

    def measure_overlap(self) -> "Overlap":
        """Return the function that gives how much those of two arrays of indices overlap, which broadcast."""
        boxes = self.boxes.numpy()
        if self.corners is None:
            return lambda rows, columns: measure_iou(boxes[rows], boxes[columns])
        turned = to_gaussians(self.corners.numpy())
        return lambda rows, columns: measure_probabilistic_iou(turned[rows], turned[columns])


def read_candidates(
    outputs: Mapping[str, Tensor],
    index: int,
    score_threshold: float,
    per_class: int | None,
    class_thresholds: Mapping[int | str, float] = NO_THRESHOLDS,
) -> Candidates:
    """Read image `index` of a detector's outputs, above the threshold: that of its class id, or `score_threshold`.

    Padded outputs: `boxes` (N, K, 4), `scores` (N, K), `class_ids` (N, K). Dense outputs: `boxes` (N, Q, 4), `scores`
    (N, Q, C), where each class keeps its `per_class` best boxes (all of them when it is None). `corners` (N, Q, 8).
    """
    corners = outputs["corners"][index].float() if "corners" in outputs else None
    boxes, scores = outputs["boxes"][index].float(), outputs["scores"][index].float()
    if "class_ids" in outputs:
        class_ids = outputs["class_ids"][index].long()
        kept = (scores > find_thresholds(class_ids, score_threshold, class_thresholds)).nonzero().squeeze(1)
        return Candidates(boxes[kept], scores[kept], class_ids[kept], kept, None if corners is None else corners[kept])
    thresholds = find_thresholds(torch.arange(scores.shape[1]), score_threshold, class_thresholds)
    if per_class is not None and per_class < scores.shape[0]:
        # The threshold moves up to each class's last kept score; NMS and sorting come later, so order does not matter.
        least = scores.topk(per_class, dim=0).values[-1].maximum(thresholds)
        kept_pairs = ((scores > thresholds) & (scores >= least)).nonzero()
    else:
        kept_pairs = (scores > thresholds).nonzero()
    query_ids, class_ids = kept_pairs.unbind(1)
    turned = None if corners is None else corners[query_ids]
    return Candidates(boxes[query_ids], scores[query_ids, class_ids], class_ids, query_ids, turned)


def require_scores(scores: Tensor) -> None:
    """Raises InferenceError for scores that are not finite, or above 1 by more than rounding makes them.

    Scores below 0 are of rows that are no candidates, and never in an answer.
    """
    low, high = scores.float().aminmax() if scores.numel() else (scores.new_zeros(1), scores.new_zeros(1))
    if not (torch.isfinite(low) and torch.isfinite(high)):
        raise InferenceError("the model gave scores that are not finite for this image")
    if high > 1 + SCORE_SLACK:
        raise InferenceError(f"the model gave a score of {float(high):.4g} for this image; expected at most 1")


def find_thresholds(
    class_ids: Tensor, score_threshold: float, class_thresholds: Mapping[int | str, float] = NO_THRESHOLDS
) -> Tensor:
    """Return the threshold of each class id; those of (K,) give (K,), or () where all are the same."""
    if not class_thresholds:
        return torch.tensor(score_threshold)
    own = {int(class_id): threshold for class_id, threshold in class_thresholds.items()}
    largest = int(class_ids.max()) if len(class_ids) else 0
    by_class = torch.full((max(largest, *own) + 1,), score_threshold)
    by_class[list(own)] = torch.tensor(list(own.values()))
    return by_class[class_ids]


def round_values(values: Tensor) -> tuple[float, ...]:
    """Round (V,) float64 as float32 does its largest: short numbers in JSON, and no more lost than was there."""
    largest = float(values.abs().max())
    decimals = 0 if largest == 0 else FLOAT32_DIGITS - math.floor(math.log10(largest))
    return tuple(np.round(values.numpy(), decimals).tolist())


def select_detections(candidates: Candidates, options: DetectionOptions) -> Candidates:
    """Select the best `max_detections` without overlaps, best first; only of the class ids in `class_filter`."""
    if options.class_filter is not None:
        wanted = torch.isin(candidates.class_ids, torch.tensor(options.class_filter))
        candidates = candidates.take(wanted.nonzero().squeeze(1))
    return NMS[options.nms](candidates, options)


def _nms_class_wise(candidates: Candidates, options: DetectionOptions) -> Candidates:
    return candidates.take(suppress_overlaps(candidates, options.iou_threshold, options.max_detections))


def _nms_class_agnostic(candidates: Candidates, options: DetectionOptions) -> Candidates:
    one_class = replace(candidates, class_ids=torch.zeros_like(candidates.class_ids))
    return candidates.take(suppress_overlaps(one_class, options.iou_threshold, options.max_detections))


def _nms_soft(candidates: Candidates, options: DetectionOptions) -> Candidates:
    thresholds = find_thresholds(candidates.class_ids, options.score_threshold, options.class_thresholds)
    return soften_overlaps(candidates, thresholds.expand(len(candidates.scores)), options.max_detections)


def _nms_none(candidates: Candidates, options: DetectionOptions) -> Candidates:
    return candidates.take(candidates.scores.argsort(descending=True, stable=True)[: options.max_detections])


NMS: dict[str, Callable[[Candidates, DetectionOptions], Candidates]] = {
    "class_wise": _nms_class_wise,
    "class_agnostic": _nms_class_agnostic,
    "soft": _nms_soft,
    "none": _nms_none,
}


def suppress_overlaps(candidates: Candidates, iou_threshold: float, limit: int) -> Tensor:
    """Keep up to `limit` indices, best first, of greedy class-wise NMS: torchvision's, without its slow import."""
    measure, class_ids = candidates.measure_overlap(), candidates.class_ids.numpy()

    def overlapping(rows: Indices, columns: Indices) -> NDArray[np.bool_]:
        iou = measure(rows[:, None], columns[None])
        above: NDArray[np.bool_] = iou > np.float64(iou_threshold)  # not rounded to float32 first: as torchvision
        above &= class_ids[rows, None] == class_ids[None, columns]
        return above

    return torch.from_numpy(keep_best(candidates.scores.numpy(), overlapping, limit))


def keep_best(scores: NDArray[np.float32], overlapping: Overlapping, limit: int) -> Indices:
    """Return the indices of (K,) scores of which none overlaps a better one that is kept, best first, until `limit`."""
    order = np.argsort(-scores, kind="stable")
    kept = order[:0]
    for start in range(0, len(order), NMS_BLOCK):
        block = order[start : start + NMS_BLOCK]
        if len(kept):
            block = block[~overlapping(kept, block).any(axis=0)]
        kept = np.concatenate((kept, block[_keep_first(overlapping(block, block))]))
        if len(kept) >= limit:
            break
    return kept[:limit]


def soften_overlaps(candidates: Candidates, thresholds: Tensor, limit: int) -> Candidates:
    """Apply Soft-NMS within each class, best first, until `limit`; thresholds (K,): at or below it a candidate is gone.

    Bodla et al., Soft-NMS, 2017 (arXiv:1704.04503), Gaussian: each box that is chosen takes from the scores of those
    that are left the factor exp(-IoU^2 / sigma).
    """
    measure, least = candidates.measure_overlap(), thresholds.numpy()
    class_ids, scores = candidates.class_ids.numpy(), candidates.scores.numpy().copy()
    members = {class_id: np.flatnonzero(class_ids == class_id) for class_id in np.unique(class_ids).tolist()}
    chosen: list[int] = []
    left = np.where(scores > least, scores, -np.inf)
    for _ in range(min(limit, len(scores))):
        best = int(left.argmax())
        if left[best] == -np.inf:
            break
        chosen.append(best)
        scores[best], left[best] = left[best], -np.inf
        own = members[int(class_ids[best])]
        left[own] *= np.exp(-(np.nan_to_num(measure(np.array([best]), own)) ** 2) / SOFT_SIGMA)
        left[own[left[own] <= least[own]]] = -np.inf
    return replace(candidates, scores=torch.from_numpy(scores)).take(torch.tensor(chosen, dtype=torch.int64))


def measure_iou(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return IoUs of boxes (..., 4) xyxy that broadcast; NaN for two without area."""
    with np.errstate(all="ignore"):  # 0 / 0, and boxes that are not finite
        shared = intersect(first, second)
        iou: NDArray[np.float32] = shared / (measure_areas(first) + measure_areas(second) - shared)
    return iou


def to_gaussians(corners: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return boxes (K, 8) as normal distributions (K, 5): centre, variances in x and y, covariance."""
    points = corners.reshape(-1, 4, 2).astype(np.float64)
    across, along = points[:, 1] - points[:, 0], points[:, 3] - points[:, 0]
    variances = (across**2 + along**2) / 12
    covariances = (across.prod(axis=1) + along.prod(axis=1)) / 12
    return np.column_stack((points.mean(axis=1), variances, covariances))


def measure_probabilistic_iou(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float32]:
    """Return 1 minus the Hellinger distance of gaussians (..., 5) that broadcast.

    Llerena et al., Gaussian Bounding Boxes and Probabilistic Intersection-over-Union, 2021 (arXiv:2106.06072): what the
    libraries that train turned boxes suppress overlaps by.
    """
    x, y, a, b, c = np.moveaxis(first, -1, 0)
    u, v, d, e, f = np.moveaxis(second, -1, 0)
    with np.errstate(all="ignore"):  # boxes without area, or not finite
        determinant = (a + d) * (b + e) - (c + f) ** 2
        distance = ((a + d) * (y - v) ** 2 + (b + e) * (x - u) ** 2 + 2 * (c + f) * (u - x) * (y - v)) / determinant / 4
        own = np.maximum(a * b - c**2, 0) * np.maximum(d * e - f**2, 0)
        distance += np.log(determinant / (4 * np.sqrt(own))) / 2
        iou: NDArray[np.float32] = (1 - np.sqrt(1 - np.exp(-np.maximum(distance, 0)))).astype(np.float32)
    return iou


def intersect(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the area that boxes (..., 4) xyxy share."""
    low, high = np.maximum(first[..., :2], second[..., :2]), np.minimum(first[..., 2:], second[..., 2:])
    shared = np.maximum(high - low, 0)
    areas: NDArray[np.float32] = shared[..., 0] * shared[..., 1]
    return areas


def measure_areas(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    areas: NDArray[np.float32] = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    return areas


def _keep_first(overlapping: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark which of (K,) are left when each that is left, in order, removes the later ones that it overlaps."""
    later = np.triu(overlapping, 1)
    kept = np.ones(len(later), dtype=np.bool_)
    for index in later.any(axis=1).nonzero()[0].tolist():
        if kept[index]:
            kept &= ~later[index]
    return kept
