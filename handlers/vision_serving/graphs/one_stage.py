"""torchvision's one-stage detectors (SSD, RetinaNet, FCOS) as graphs: pixels in, box candidates of the batch out.

The arithmetic is torchvision's own (its backbones, heads and box coders). What changes: a batch stays one tensor, and
thresholds and NMS are left to `postprocessing.py`, so that N is dynamic and each request has its own options.
"""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.detection.ssd import SSD

from vision_serving.graphs.anchors import AnchorGrid, at_most, cell_anchors_of, clip_boxes, feature_maps
from vision_serving.graphs.pixels import pad_to_multiple


class SsdGraph(nn.Module):
    """SSD and SSDLite at their fixed input size: dense `boxes` (N, Q, 4) and `scores` (N, Q, C), background zeroed."""

    default_boxes: Tensor

    def __init__(self, model: SSD, normalize: nn.Module) -> None:
        super().__init__()
        self.model = model
        height, width = model.transform.fixed_size[1], model.transform.fixed_size[0]
        self.normalize = normalize
        with torch.inference_mode():
            images = torch.zeros(1, 3, height, width)
            anchors = model.anchor_generator(ImageList(images, [(height, width)]), feature_maps(model.backbone, images))
        self.register_buffer("default_boxes", anchors[0].clone())

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        head = self.model.head(feature_maps(self.model.backbone, self.normalize(pixels)))
        deltas = head["bbox_regression"]
        boxes = self.model.box_coder.decode_single(
            deltas.reshape(-1, 4), self.default_boxes.repeat(deltas.shape[0], 1)
        ).reshape(deltas.shape)
        scores = head["cls_logits"].softmax(dim=-1)
        background = torch.zeros_like(scores[..., :1])
        return {
            "boxes": clip_boxes(boxes, pixels.shape[1], pixels.shape[2]),
            "scores": torch.cat((background, scores[..., 1:]), dim=-1),
        }


class PyramidGraph(nn.Module):
    """Feature levels, the best `topk_candidates` of each: `boxes` (N, K, 4), `scores` and `class_ids` (N, K)."""

    def __init__(self, model: RetinaNet | FCOS, normalize: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.normalize = normalize
        self.num_classes = model.head.classification_head.num_classes
        self.anchors = AnchorGrid(cell_anchors_of(model.anchor_generator))

    @abstractmethod
    def score(self, head: dict[str, Tensor]) -> Tensor:
        """Return class scores (N, Q, C) of one level."""

    @abstractmethod
    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """Return boxes (M, 4) from deltas (M, 4) and anchors (M, 4)."""

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        images = pad_to_multiple(self.normalize(pixels), self.model.transform.size_divisible)
        levels = [
            self._best_of_level(features, self.anchors(level, features, images))
            for level, features in enumerate(feature_maps(self.model.backbone, images))
        ]
        boxes, scores, class_ids = (torch.cat(parts, dim=1) for parts in zip(*levels, strict=True))
        return {"boxes": clip_boxes(boxes, pixels.shape[1], pixels.shape[2]), "scores": scores, "class_ids": class_ids}

    def _best_of_level(self, features: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        head = self.model.head([features])
        scores = self.score(head)
        num_classes = scores.shape[-1]
        flat_scores = scores.flatten(1)
        best, indices = flat_scores.topk(at_most(self.model.topk_candidates, flat_scores.shape[1]), dim=1)
        anchor_indices = torch.div(indices, num_classes, rounding_mode="floor")
        deltas = head["bbox_regression"].gather(1, anchor_indices.unsqueeze(-1).expand(-1, -1, 4))
        boxes = self.decode(deltas.reshape(-1, 4), anchors[anchor_indices.reshape(-1)])
        return boxes.reshape(deltas.shape), best, indices % num_classes


class RetinaNetGraph(PyramidGraph):
    def score(self, head: dict[str, Tensor]) -> Tensor:
        return head["cls_logits"].sigmoid()

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        return self.model.box_coder.decode_single(deltas, anchors)


class FcosGraph(PyramidGraph):
    def score(self, head: dict[str, Tensor]) -> Tensor:
        return (head["cls_logits"].sigmoid() * head["bbox_ctrness"].sigmoid()).sqrt()

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        return self.model.box_coder.decode(deltas, anchors)
