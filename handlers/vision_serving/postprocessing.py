"""Named outputs of a backend -> the best classes or boxes of each image. Plain tensor functions."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision_serving.config import DetectionOptions

NMS_BLOCK = 128  # boxes compared at once: one block for most pictures, and little memory for tens of thousands
Indices = NDArray[np.int64]


def top_k_classes(logits: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Probabilities and class ids (k,) of one image's logits (C,), best first; k = min(top_k, C)."""
    scores, class_ids = logits.float().softmax(dim=-1).topk(min(top_k, logits.shape[-1]))
    return scores, class_ids


@dataclass(frozen=True)
class Candidates:
    """boxes: (K, 4) xyxy in model pixels. scores: (K,). class_ids: (K,). rows: (K,) their places in padded outputs."""

    boxes: Tensor
    scores: Tensor
    class_ids: Tensor
    rows: Tensor | None = None

    def take(self, indices: Tensor) -> "Candidates":
        rows = None if self.rows is None else self.rows[indices]
        return Candidates(self.boxes[indices], self.scores[indices], self.class_ids[indices], rows)


def read_candidates(
    outputs: Mapping[str, Tensor], index: int, score_threshold: float, per_class: int | None
) -> Candidates:
    """Image `index` of a detector's outputs, above the threshold.

    Padded outputs: `boxes` (N, K, 4), `scores` (N, K), `class_ids` (N, K). Dense outputs: `boxes` (N, Q, 4), `scores`
    (N, Q, C), where each class keeps its `per_class` best boxes (all of them when it is None).
    """
    boxes, scores = outputs["boxes"][index].float(), outputs["scores"][index].float()
    if "class_ids" in outputs:
        kept = (scores > score_threshold).nonzero().squeeze(1)
        return Candidates(boxes[kept], scores[kept], outputs["class_ids"][index][kept], kept)
    if per_class is not None and per_class < scores.shape[0]:
        # The threshold moves up to each class's last kept score; NMS and sorting come later, so order does not matter.
        least = scores.topk(per_class, dim=0).values[-1].clamp(min=score_threshold)
        kept_pairs = ((scores > score_threshold) & (scores >= least)).nonzero()
    else:
        kept_pairs = (scores > score_threshold).nonzero()
    query_ids, class_ids = kept_pairs.unbind(1)
    return Candidates(boxes[query_ids], scores[query_ids, class_ids], class_ids)


def select_detections(candidates: Candidates, options: DetectionOptions) -> Candidates:
    """Class-wise NMS, then the best `max_detections`, best first; only of the class ids in `class_filter`."""
    if options.class_filter is not None:
        wanted = torch.isin(candidates.class_ids, torch.tensor(options.class_filter))
        candidates = candidates.take(wanted.nonzero().squeeze(1))
    return candidates.take(suppress_overlaps(candidates, options.iou_threshold, options.max_detections))


def suppress_overlaps(candidates: Candidates, iou_threshold: float, limit: int) -> Tensor:
    """Greedy class-wise NMS that stops at `limit`: the indices kept, best first, of equal scores the first.

    Equals torchvision.ops.batched_nms cut to `limit`; torchvision would take a worker a second to import.
    """
    overlap = partial(_overlapping, candidates.boxes.numpy(), candidates.class_ids.numpy(), iou_threshold)
    order = np.argsort(-candidates.scores.numpy(), kind="stable")
    kept = order[:0]
    for start in range(0, len(order), NMS_BLOCK):
        block = order[start : start + NMS_BLOCK]
        if len(kept):
            block = block[~overlap(kept, block).any(axis=0)]
        kept = np.concatenate((kept, block[_keep_best(overlap(block, block))]))
        if len(kept) >= limit:
            break
    return torch.from_numpy(kept[:limit])


def _overlapping(
    boxes: NDArray[np.float32], class_ids: NDArray[np.int64], iou_threshold: float, rows: Indices, columns: Indices
) -> NDArray[np.bool_]:
    """(rows, columns): whether two boxes are of one class, with an IoU above the threshold."""
    first, second = boxes[rows, None], boxes[None, columns]
    with np.errstate(all="ignore"):  # 0 / 0 of boxes without area, and boxes that are not finite
        low, high = np.maximum(first[..., :2], second[..., :2]), np.minimum(first[..., 2:], second[..., 2:])
        shared = np.maximum(high - low, 0)
        intersection = shared[..., 0] * shared[..., 1]
        iou = intersection / (_areas(first) + _areas(second) - intersection)
        above = iou > np.float64(iou_threshold)  # not rounded to float32 first: torchvision compares so
    overlapping: NDArray[np.bool_] = above & (class_ids[rows, None] == class_ids[None, columns])
    return overlapping


def _areas(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    areas: NDArray[np.float32] = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    return areas


def _keep_best(overlapping: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which are left of (K,) when each that is left, best first, removes the later ones that it overlaps."""
    later = np.triu(overlapping, 1)
    kept = np.ones(len(later), dtype=np.bool_)
    for index in later.any(axis=1).nonzero()[0].tolist():
        if kept[index]:
            kept &= ~later[index]
    return kept
