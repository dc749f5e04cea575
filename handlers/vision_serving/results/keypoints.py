"""The keypoints of one box, from a model's heatmaps."""

import torch
from torch import Tensor
from torch.nn import functional


def locate_keypoints(heatmaps: Tensor, box_xyxy: Tensor) -> Tensor:
    """Where each heatmap is highest: (P, 3) of x and y in model pixels, and the score there.

    heatmaps: (P, H, W) over the box (4,) in model pixels. Equals torchvision.models.detection.roi_heads.
    heatmaps_to_keypoints: the heatmaps are enlarged to the whole pixels of the box.
    """
    size = (box_xyxy[2:] - box_xyxy[:2]).clamp(min=1)
    width, height = (int(side) for side in size.ceil())
    enlarged = functional.interpolate(heatmaps.unsqueeze(1), size=(height, width), mode="bicubic").flatten(1)
    best = enlarged.argmax(dim=1, keepdim=True)
    pixels = torch.cat((best % width, torch.div(best, width, rounding_mode="floor")), dim=1)
    points = (pixels + 0.5) * (size / size.ceil()) + box_xyxy[:2]
    return torch.cat((points, enlarged.gather(1, best)), dim=1)
