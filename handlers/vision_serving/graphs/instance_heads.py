"""torchvision's Mask and Keypoint R-CNN: what their last head says of the boxes that the model itself would answer.

That head costs as much as half the backbone for a hundred boxes, and there are tens of thousands of candidates. So the
model's own thresholds and NMS choose inside the graph. The candidates stay beside them as those of any other detector,
for the thresholds of a request.
"""

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torchvision.ops import nms

from vision_serving.graphs.anchors import at_most
from vision_serving.graphs.two_stage import SUPPRESSED, RcnnGraph, pool_rois
from vision_serving.options import Instances

# Boxes that are moved apart lose their last bits. So much above the threshold, a box too many is kept and none lost.
IOU_MARGIN = 2e-4


class InstanceGraph(RcnnGraph):
    """Beside the candidates: `instances` (N, D), which of them have a value, and those values (N, D, ...).

    D is the largest number in the batch, at most the model's detections per image; -1 stands where an image has fewer.
    """

    instances: ClassVar[Instances]
    output: ClassVar[str]

    @abstractmethod
    def run_head(self, features: dict[str, Tensor], rois: Tensor, class_ids: Tensor) -> Tensor:
        """Return a value (M, ...) for each of rois (M, 5: image index and xyxy)."""

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        features, candidates = self.detect(pixels)
        instances = self._choose(candidates, pixels.shape[1] + pixels.shape[2])
        return {**candidates, "instances": instances, self.output: self._evaluate(features, candidates, instances)}

    def _choose(self, candidates: dict[str, Tensor], spacing: int | Tensor) -> Tensor:
        """Return rows (N, D) of the candidates, best first, then -1; every image has its best one at least.

        One NMS for the batch, as in the RPN: images and classes are moved apart by `spacing`, more than a side.
        """
        heads = self.model.roi_heads
        scores, num_rows = candidates["scores"], candidates["scores"].shape[1]
        # The best one whatever its score: runtimes differ in what they make of no boxes at all.
        is_best = torch.arange(num_rows, device=scores.device) == scores.argmax(dim=1, keepdim=True)
        flat_rows = ((scores > heads.score_thresh) | is_best).reshape(-1).nonzero().squeeze(1)
        class_ids = candidates["class_ids"].reshape(-1)[flat_rows]
        side = math.ceil(math.sqrt(self.num_classes))  # a square of classes, so that no box moves far
        columns = class_ids % side
        lines = _floor_divide(class_ids, side) + side * _floor_divide(flat_rows, num_rows)
        offsets = torch.stack((columns, lines, columns, lines), dim=1).to(scores.dtype) * spacing
        boxes = candidates["boxes"].reshape(-1, 4)[flat_rows] + offsets
        flat_scores = scores.reshape(-1)
        kept = flat_rows[nms(boxes, flat_scores[flat_rows], heads.nms_thresh + IOU_MARGIN)]
        kept_scores = torch.full_like(flat_scores, SUPPRESSED).scatter(0, kept, flat_scores[kept]).reshape(scores.shape)
        most = (kept_scores > SUPPRESSED).sum(dim=1).max()
        best, rows = kept_scores.topk(at_most(heads.detections_per_img, most), dim=1)
        return torch.where(best > SUPPRESSED, rows, torch.full_like(rows, -1))

    def _evaluate(self, features: dict[str, Tensor], candidates: dict[str, Tensor], instances: Tensor) -> Tensor:
        """Return the head's values (N, D, ...). It runs only on boxes that are there."""
        flat = instances.reshape(-1)
        is_there = flat >= 0
        places = is_there.nonzero().squeeze(1)
        image_ids = _floor_divide(places, instances.shape[1])
        rows = image_ids * candidates["scores"].shape[1] + flat[places]
        boxes = candidates["boxes"].reshape(-1, 4)[rows]
        rois = torch.cat((image_ids.to(boxes.dtype).unsqueeze(1), boxes), dim=1)
        values = self.run_head(features, rois, candidates["class_ids"].reshape(-1)[rows])
        return values[is_there.long().cumsum(0) - 1].reshape(*instances.shape, *values.shape[1:])


def _floor_divide(values: Tensor, divisor: int | Tensor) -> Tensor:
    return torch.div(values, divisor, rounding_mode="floor")


class MaskRcnnGraph(InstanceGraph):
    """`masks` (N, D, 28, 28): the probabilities of a grid over the box, for the box's class."""

    instances = "masks"
    output = "masks"

    def run_head(self, features: dict[str, Tensor], rois: Tensor, class_ids: Tensor) -> Tensor:
        heads = self.model.roi_heads
        pooled = pool_rois(heads.mask_roi_pool, features, rois)
        logits = heads.mask_predictor(heads.mask_head(pooled))
        of_class = class_ids.reshape(-1, 1, 1, 1).expand(-1, 1, *logits.shape[2:])
        return logits.gather(1, of_class).squeeze(1).sigmoid()


class KeypointRcnnGraph(InstanceGraph):
    """`heatmaps` (N, D, P, 56, 56): the scores of each keypoint on a grid over the box.

    Where a keypoint is best is found at the size of each box, which only a loop could do inside a graph.
    `results/instances.py` does it for the boxes that are answered.
    """

    instances = "keypoints"
    output = "heatmaps"

    def run_head(self, features: dict[str, Tensor], rois: Tensor, class_ids: Tensor) -> Tensor:
        heads = self.model.roi_heads
        pooled = pool_rois(heads.keypoint_roi_pool, features, rois)
        return heads.keypoint_predictor(heads.keypoint_head(pooled))
