"""A compact anchor-free one-stage detector, and that of the ten digits; this file needs nothing but torch.

A convolutional trunk feeds two maps, of stride 8 and 16; at each point of them a shared head predicts a score per
class and the centre and size of one box.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

INPUT_SIZE = 256
CLASS_COUNT = 10
STRIDES = (8, 16)
CHANNELS = 64


def conv_block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_block(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, features: Tensor) -> Tensor:
        return functional.relu(features + self.second(self.first(features)))


class Trunk(nn.Module):
    """(N, 3, H, W) to maps of stride 8 and 16, both with CHANNELS channels."""

    def __init__(self) -> None:
        super().__init__()
        self.to_stride_8 = nn.Sequential(
            conv_block(3, 16, 2), conv_block(16, 32, 2), conv_block(32, 64, 2), ResidualBlock(64), ResidualBlock(64)
        )
        self.to_stride_16 = nn.Sequential(conv_block(64, 128, 2), ResidualBlock(128), ResidualBlock(128))
        self.reduce = nn.Conv2d(128, CHANNELS, 1)
        self.merge = conv_block(64, CHANNELS)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.to_stride_8(images)
        coarse = self.reduce(self.to_stride_16(fine))
        return self.merge(fine + functional.interpolate(coarse, scale_factor=2.0, mode="nearest")), coarse


class Head(nn.Module):
    """Scores and box offsets at each point of a map; the same weights for both maps."""

    def __init__(self, class_count: int) -> None:
        super().__init__()
        classify = nn.Conv2d(CHANNELS, class_count, 3, padding=1)
        nn.init.normal_(classify.weight, std=0.01)
        nn.init.constant_(classify.get_parameter("bias"), -4.6)  # a prior of 1 %, or background drowns the first steps
        self.class_tower = nn.Sequential(conv_block(CHANNELS, CHANNELS), classify)
        self.box_tower = nn.Sequential(conv_block(CHANNELS, CHANNELS), nn.Conv2d(CHANNELS, 4, 3, padding=1))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, h * w, C) and offsets (N, h * w, 4)."""
        logits = self.class_tower(features).flatten(2).transpose(1, 2)
        offsets = self.box_tower(features).flatten(2).transpose(1, 2)
        return logits, offsets


def make_points(input_size: int) -> tuple[Tensor, Tensor]:
    """The centres (Q, 2) in input pixels and the strides (Q, 1) of all points, fine map first, row by row."""
    points, strides = [], []
    for stride in STRIDES:
        centres = (torch.arange(input_size // stride) + 0.5) * stride
        rows, columns = torch.meshgrid(centres, centres, indexing="ij")
        points.append(torch.stack([columns.flatten(), rows.flatten()], dim=1))
        strides.append(torch.full((rows.numel(), 1), float(stride)))
    return torch.cat(points), torch.cat(strides)


class CompactDetector(nn.Module):
    """Dense detections in square images whose side is a multiple of 16; thresholds and NMS are the caller's."""

    points: Tensor
    strides: Tensor

    def __init__(self, class_count: int, input_size: int = INPUT_SIZE) -> None:
        super().__init__()
        if input_size % STRIDES[-1]:
            raise ValueError(f"input_size {input_size}: expected a multiple of {STRIDES[-1]}")
        self.trunk = Trunk()
        self.head = Head(class_count)
        points, strides = make_points(input_size)
        self.register_buffer("points", points, persistent=False)
        self.register_buffer("strides", strides, persistent=False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """images: (N, 3, S, S), normalised. Returns boxes (N, Q, 4) xyxy in input pixels, scores (N, Q, C)."""
        logits, boxes_xyxy = self.predict_logits(images)
        return {"boxes": boxes_xyxy, "scores": logits.sigmoid()}

    def predict_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, Q, C), for the loss, and the decoded boxes (N, Q, 4)."""
        outputs = [self.head(features) for features in self.trunk(images)]
        logits = torch.cat([logits for logits, _ in outputs], dim=1)
        offsets = torch.cat([offsets for _, offsets in outputs], dim=1)
        return logits, self.decode(offsets)

    def decode(self, offsets: Tensor) -> Tensor:
        """Offsets in strides (centre x, y from the point; width, height before softplus) as xyxy in input pixels."""
        centres = self.points + offsets[..., :2] * self.strides
        halves = functional.softplus(offsets[..., 2:]) * self.strides
        return torch.cat([centres - halves, centres + halves], dim=-1)


class DigitDetector(CompactDetector):
    """The detector of the ten digits in 256x256 images."""

    def __init__(self) -> None:
        super().__init__(CLASS_COUNT)
