"""torchvision's R-CNN detectors as a graph with a dynamic batch; `instance_heads.py` adds masks and keypoints.

torchvision loops over the images of a batch; here the batch stays one tensor. Proposals that NMS drops keep their place
with a score of -1, so that every image has the same number of rows. Thresholds and the final NMS are left to
`postprocessing.py`.
"""

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FasterRCNN
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import MultiScaleRoIAlign, nms, roi_align

from vision_serving.graphs.anchors import AnchorGrid, at_most, cell_anchors_of, clip_boxes
from vision_serving.graphs.pixels import pad_to_multiple

SUPPRESSED = -1.0
MIN_BOX_SIZE = 1e-2  # pixels; torchvision drops smaller final boxes


class RcnnGraph(nn.Module):
    """Padded candidates `boxes` (N, K, 4), `scores` (N, K), `class_ids` (N, K), K = proposals x foreground classes."""

    # Which of many alike proposals are the best decides all that follows: an int8 RPN picks others (29 dB -> 9 dB).
    float_layers = ("model.rpn.head",)

    def __init__(self, model: FasterRCNN, normalize: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.normalize = normalize
        self.num_classes = model.roi_heads.box_predictor.cls_score.out_features
        self.anchors = AnchorGrid(cell_anchors_of(model.rpn.anchor_generator))
        with torch.inference_mode():
            model([torch.zeros(3, 64, 64)])  # torchvision sets the scales of its RoI pooling at the first image

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return self.detect(pixels)[1]

    def detect(self, pixels: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the feature maps by name, and the candidates."""
        height, width = pixels.shape[1], pixels.shape[2]
        images = pad_to_multiple(self.normalize(pixels), self.model.transform.size_divisible)
        features = self.model.backbone(images)
        features = {"0": features} if isinstance(features, Tensor) else features
        proposals, objectness = self._propose(list(features.values()), images, height, width)
        return features, self._classify(features, proposals, objectness, height, width)

    def _propose(self, features: list[Tensor], images: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return the best proposals (N, P, 4) of all levels, with objectness (N, P), SUPPRESSED where there is none."""
        rpn = self.model.rpn
        levels = []
        for level, (objectness, deltas) in enumerate(zip(*rpn.head(features), strict=True)):
            anchors = self.anchors(level, features[level], images)
            levels.append(self._propose_level(objectness, deltas, anchors, height, width))
        boxes, scores = (torch.cat(parts, dim=1) for parts in zip(*levels, strict=True))
        best, indices = scores.topk(at_most(rpn.post_nms_top_n(), scores.shape[1]), dim=1)
        return boxes.gather(1, indices.unsqueeze(-1).expand(-1, -1, 4)), best

    def _propose_level(
        self, objectness: Tensor, deltas: Tensor, anchors: Tensor, height: int, width: int
    ) -> tuple[Tensor, Tensor]:
        rpn = self.model.rpn
        count = objectness.shape[0]
        logits, deltas = concat_box_prediction_layers([objectness], [deltas])
        logits, deltas = logits.reshape(count, -1), deltas.reshape(count, -1, 4)
        logits, indices = logits.topk(at_most(rpn.pre_nms_top_n(), logits.shape[1]), dim=1)
        deltas = deltas.gather(1, indices.unsqueeze(-1).expand(-1, -1, 4))
        boxes = rpn.box_coder.decode_single(deltas.reshape(-1, 4), anchors[indices.reshape(-1)])
        boxes = clip_boxes(boxes.reshape(deltas.shape), height, width)
        scores = logits.sigmoid()
        valid = _larger_than(boxes, rpn.min_size) & (scores >= rpn.score_thresh)
        scores = torch.where(valid, scores, torch.full_like(scores, SUPPRESSED))
        return boxes, _suppress_per_image(boxes, scores, rpn.nms_thresh, height + width)

    def _classify(
        self, features: dict[str, Tensor], proposals: Tensor, objectness: Tensor, height: int, width: int
    ) -> dict[str, Tensor]:
        heads = self.model.roi_heads
        count, num_proposals = objectness.shape
        image_indices = torch.arange(count, device=proposals.device).to(proposals.dtype)
        rois = torch.cat((image_indices.reshape(-1, 1, 1).expand(-1, num_proposals, 1), proposals), dim=-1)
        pooled = pool_rois(heads.box_roi_pool, features, rois.reshape(-1, 5))
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
        num_classes = logits.shape[-1]
        boxes = heads.box_coder.decode_single(deltas, proposals.reshape(-1, 4))
        boxes = clip_boxes(boxes.reshape(count, num_proposals, num_classes, 4), height, width)[:, :, 1:]
        scores = logits.softmax(-1).reshape(count, num_proposals, num_classes)[:, :, 1:]
        valid = _larger_than(boxes, MIN_BOX_SIZE) & (objectness.unsqueeze(-1) > SUPPRESSED)
        scores = torch.where(valid, scores, torch.zeros_like(scores))
        class_ids = torch.arange(1, num_classes, device=scores.device).expand(count, num_proposals, -1)
        return {
            "boxes": boxes.reshape(count, -1, 4),
            "scores": scores.reshape(count, -1),
            "class_ids": class_ids.reshape(count, -1),
        }


def pool_rois(pool: MultiScaleRoIAlign, features: dict[str, Tensor], rois: Tensor) -> Tensor:
    """Pool rois (M, 5: image index and xyxy), each from the pyramid level that fits its size."""
    maps = [features[name] for name in pool.featmap_names if name in features]
    aligned = [
        roi_align(level_map, rois, pool.output_size, scale, pool.sampling_ratio)
        for level_map, scale in zip(maps, pool.scales, strict=True)
    ]
    if len(aligned) == 1:
        return aligned[0]
    levels = pool.map_levels([rois[:, 1:]]).reshape(-1, 1, 1, 1)
    chosen = aligned[0]
    for level, values in enumerate(aligned[1:], start=1):
        chosen = torch.where(levels == level, values, chosen)
    return chosen


def _larger_than(boxes: Tensor, size: float) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0] >= size) & (boxes[..., 3] - boxes[..., 1] >= size)


def _suppress_per_image(boxes: Tensor, scores: Tensor, iou_threshold: float, spacing: int | Tensor) -> Tensor:
    """Apply NMS within each image of boxes (N, K, 4), scores (N, K): SUPPRESSED scores where a box was dropped.

    One call for the batch: images are moved apart by `spacing`, more than a side, so that their boxes cannot overlap.
    """
    offsets = torch.arange(boxes.shape[0], device=boxes.device).to(boxes.dtype) * spacing
    kept = nms((boxes + offsets.reshape(-1, 1, 1)).reshape(-1, 4), scores.reshape(-1), iou_threshold)
    flat_scores = scores.reshape(-1)
    return torch.full_like(flat_scores, SUPPRESSED).scatter(0, kept, flat_scores[kept]).reshape(scores.shape)
