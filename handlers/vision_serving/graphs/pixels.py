"""First layers of every graph: uint8 RGB pixels to the normalised float image that a network was trained on."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from vision_serving.config import PreprocessingConfig

# Pillow's, in parts of 2^16: the sums have at most 24 bits, so that they are exact in float32.
PILLOW_GRAY = (19595.0, 38470.0, 7471.0)
TORCHVISION_GRAY = (0.2989, 0.587, 0.114)


class Normalize(nn.Module):
    """uint8 (N, H, W, 3) RGB -> float (N, C, H, W) as the network's channels, in [0, 1], then (x - mean) / std."""

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessing: PreprocessingConfig) -> None:
        super().__init__()
        self.to_channels = CHANNELS[preprocessing.gray if preprocessing.channels == 1 else preprocessing.color_order]
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, -1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        return (self.to_levels(pixels) / 255 - self.mean) / self.std

    def to_levels(self, pixels: Tensor) -> Tensor:
        """Return the network's channels in 0..255, not yet normalised."""
        return self.to_channels(pixels.permute(0, 3, 1, 2).to(self.mean.dtype))


def _as_they_are(planes: Tensor) -> Tensor:
    return planes


def _reversed(planes: Tensor) -> Tensor:
    return planes.flip(1)


def _as_pillow(planes: Tensor) -> Tensor:
    gray = _weigh(planes, PILLOW_GRAY) / 65536
    return gray + ((gray + 0.5).floor() - gray).detach()  # rounding has no gradient, and explanations need one


def _as_torchvision(planes: Tensor) -> Tensor:
    return _weigh(planes, TORCHVISION_GRAY)


def _weigh(planes: Tensor, weights: tuple[float, float, float]) -> Tensor:
    """Return the sum of red, green and blue by weights: not a convolution, which may be computed in 16 or 8 bits."""
    red, green, blue = weights
    return planes[:, 0:1] * red + planes[:, 1:2] * green + planes[:, 2:3] * blue


CHANNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "rgb": _as_they_are,
    "bgr": _reversed,
    "pillow": _as_pillow,
    "torchvision": _as_torchvision,
}


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Zero-pad (N, C, H, W) at the bottom and right until H and W are multiples of `multiple`."""
    height, width = images.shape[-2:]
    return functional.pad(images, (0, -width % multiple, 0, -height % multiple))
