"""Tiny Mask and Keypoint R-CNNs of torchvision, with the same weights each time. A file for `python` recipes."""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import KeypointRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

CHANNELS = 16
KEYPOINTS = 4
MASK_SEED, KEYPOINT_SEED = 9, 5  # weights that find several boxes, without ties
MIN_SIZE, MAX_SIZE = 96, 144
LEVELS = ["0", "1"]


class TinyPyramid(nn.Module):
    """Two levels, of strides 8 and 16."""

    out_channels = CHANNELS

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, CHANNELS, 8, stride=8)
        self.coarse = nn.Conv2d(CHANNELS, CHANNELS, 2, stride=2)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        fine = self.fine(images).relu()
        return {"0": fine, "1": self.coarse(fine).relu()}


def tiny_mask_rcnn(num_classes: int = 4) -> MaskRCNN:
    with torch.random.fork_rng():
        torch.manual_seed(MASK_SEED)
        return build(
            MaskRCNN,
            num_classes,
            mask_roi_pool=MultiScaleRoIAlign(LEVELS, 14, 2),
            mask_head=MaskRCNNHeads(CHANNELS, (CHANNELS, CHANNELS), 1),
            mask_predictor=MaskRCNNPredictor(CHANNELS, CHANNELS, num_classes),
        )


def tiny_keypoint_rcnn(num_classes: int = 2) -> KeypointRCNN:
    with torch.random.fork_rng():
        torch.manual_seed(KEYPOINT_SEED)
        return build(
            KeypointRCNN,
            num_classes,
            keypoint_roi_pool=MultiScaleRoIAlign(LEVELS, 14, 2),
            keypoint_head=KeypointRCNNHeads(CHANNELS, (CHANNELS, CHANNELS)),
            keypoint_predictor=KeypointRCNNPredictor(CHANNELS, KEYPOINTS),
        )


def build(kind: Any, num_classes: int, **heads: nn.Module) -> Any:
    network = kind(
        TinyPyramid(),
        min_size=MIN_SIZE,
        max_size=MAX_SIZE,
        rpn_anchor_generator=AnchorGenerator(((40,), (80,)), ((0.5, 1.0, 2.0),) * 2),
        rpn_pre_nms_top_n_test=60,
        rpn_post_nms_top_n_test=40,
        box_roi_pool=MultiScaleRoIAlign(LEVELS, 7, 2),
        box_head=TwoMLPHead(CHANNELS * 49, 32),
        box_predictor=FastRCNNPredictor(32, num_classes),
        box_score_thresh=0.5,
        box_detections_per_img=8,
        **heads,
    )
    for module in network.modules():
        spread(module)
    return network.eval()


def spread(module: nn.Module) -> None:
    """Scores that pass thresholds, without ties, and masks that are clearly in or out."""
    if isinstance(module, TinyPyramid):
        nn.init.normal_(module.fine.weight, std=0.2)
    if isinstance(module, FastRCNNPredictor):
        nn.init.normal_(module.cls_score.weight, std=0.5)
        nn.init.normal_(module.bbox_pred.weight, std=0.3)
    if isinstance(module, RPNHead):
        nn.init.normal_(module.cls_logits.weight, std=1.0)
        nn.init.normal_(module.bbox_pred.weight, std=0.2)
    if isinstance(module, MaskRCNNPredictor):
        nn.init.normal_(module.mask_fcn_logits.weight, std=1.0)
