"""First layers of every graph: uint8 RGB pixels to the normalised float image that a network was trained on."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Normalize(nn.Module):
    """uint8 (N, H, W, 3) RGB -> float (N, 3, H, W) in the network's colour order, in [0, 1], then (x - mean) / std."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], color_order: str = "rgb") -> None:
        super().__init__()
        self.is_bgr = color_order == "bgr"
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        planes = pixels.permute(0, 3, 1, 2).to(self.mean.dtype)
        if self.is_bgr:
            planes = planes.flip(1)
        return (planes / 255 - self.mean) / self.std


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Zero-pad (N, C, H, W) at the bottom and right until H and W are multiples of `multiple`."""
    height, width = images.shape[-2:]
    return functional.pad(images, (0, -width % multiple, 0, -height % multiple))
