"""The detector's training loss: quality focal loss for the scores, generalised IoU for the boxes."""

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss

SIDE_RANGES = {8: (0.0, 56.0), 16: (40.0, float("inf"))}
CENTRE_RADIUS = 1.25
BACKGROUND = -1


def compute_detection_loss(
    logits: Tensor, boxes: Tensor, points: Tensor, strides: Tensor, truth: list[tuple[Tensor, Tensor]]
) -> Tensor:
    """Mean loss per positive point.

    logits: (N, Q, C). boxes: (N, Q, 4) xyxy. points: (Q, 2). strides: (Q, 1). truth: boxes (M, 4) and class ids (M,)
    of each image, none where it shows nothing.
    """
    assigned = [assign_points(points, strides, *image_truth) for image_truth in truth]
    class_ids = torch.stack([ids for ids, _ in assigned])
    targets = torch.stack([target for _, target in assigned])
    positive = class_ids != BACKGROUND
    logits, boxes = logits.float(), boxes.float()  # of 16-bit training, where small shares of pixels vanish
    quality = torch.zeros_like(logits)
    quality[positive, class_ids[positive]] = compute_paired_iou(boxes[positive].detach(), targets[positive])
    box_loss = generalized_box_iou_loss(boxes[positive], targets[positive], reduction="sum")
    loss: Tensor = (compute_quality_focal_loss(logits, quality) + 2 * box_loss) / positive.sum().clamp(min=1)
    return loss


def assign_points(points: Tensor, strides: Tensor, boxes: Tensor, class_ids: Tensor) -> tuple[Tensor, Tensor]:
    """The class id (Q,), or BACKGROUND, and the box (Q, 4) that each point should predict.

    A point takes the box whose centre is nearest, if that is close to it and the box fits the stride's range.
    """
    if not len(boxes):
        return torch.full_like(points[:, 0], BACKGROUND, dtype=torch.int64), points.new_zeros(len(points), 4)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1)
    distances = (points[:, None] - centres[None]).abs().amax(dim=2) / strides
    ranges = boxes.new_tensor([SIDE_RANGES[int(stride)] for stride in strides.flatten().tolist()])
    lows, highs = ranges[:, 0], ranges[:, 1]
    fits = (sides[None] >= lows[:, None]) & (sides[None] <= highs[:, None])
    nearest, numbers = distances.masked_fill(~fits, float("inf")).min(dim=1)
    return class_ids[numbers].masked_fill(nearest > CENTRE_RADIUS, BACKGROUND), boxes[numbers]


def compute_paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU of row i with row i: (K, 4) and (K, 4) to (K,)."""
    sides = torch.minimum(boxes[:, 2:], others[:, 2:]) - torch.maximum(boxes[:, :2], others[:, :2])
    shared = sides.clamp(min=0).prod(dim=1)
    areas = [(b[:, 2:] - b[:, :2]).prod(dim=1) for b in (boxes, others)]
    return shared / (areas[0] + areas[1] - shared)


def compute_quality_focal_loss(logits: Tensor, quality: Tensor) -> Tensor:
    """Sum of cross entropies with a target in [0, 1], weighted by how far the score is from it."""
    weight = (quality - logits.sigmoid()).square()
    return (weight * functional.binary_cross_entropy_with_logits(logits, quality, reduction="none")).sum()
