"""Named outputs of a backend -> the best classes or boxes of each image. Plain tensor functions."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vision_serving.config import DetectionOptions


def top_k_classes(logits: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Probabilities and class ids (k,) of one image's logits (C,), best first; k = min(top_k, C)."""
    scores, class_ids = logits.float().softmax(dim=-1).topk(min(top_k, logits.shape[-1]))
    return scores, class_ids


@dataclass(frozen=True)
class Candidates:
    """boxes: (K, 4) xyxy in model pixels. scores: (K,). class_ids: (K,)."""

    boxes: Tensor
    scores: Tensor
    class_ids: Tensor

    def take(self, indices: Tensor) -> "Candidates":
        return Candidates(self.boxes[indices], self.scores[indices], self.class_ids[indices])


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
        return Candidates(boxes[kept], scores[kept], outputs["class_ids"][index][kept])
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
    from torchvision.ops import batched_nms  # torchvision takes a second to import; classifiers never need it

    if options.class_filter is not None:
        wanted = torch.isin(candidates.class_ids, torch.tensor(options.class_filter))
        candidates = candidates.take(wanted.nonzero().squeeze(1))
    kept = batched_nms(candidates.boxes, candidates.scores, candidates.class_ids, options.iou_threshold)
    return candidates.take(kept[: options.max_detections])
