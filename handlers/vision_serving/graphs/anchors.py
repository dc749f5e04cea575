"""Anchor grids and box arithmetic as torchvision's detectors do them, for whole batches and traceable shapes."""

import torch
from torch import Tensor, nn


def clip_boxes(boxes: Tensor, height: int | Tensor, width: int | Tensor) -> Tensor:
    """Limit boxes (..., 4) xyxy to an image of that height and width."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack((x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)), dim=-1)


def at_most(limit: int, count: int | Tensor) -> int | Tensor:
    """Return min(limit, count); it stays symbolic while a graph is traced, when `count` is a tensor."""
    return torch.minimum(torch.tensor(limit), count) if isinstance(count, Tensor) else min(limit, count)


class AnchorGrid(nn.Module):
    """The anchors of every feature level, from `cell_anchors`: one (A, 4) tensor around the origin per level."""

    def __init__(self, cell_anchors: list[Tensor]) -> None:
        super().__init__()
        for level, cells in enumerate(cell_anchors):
            self.register_buffer(f"cells_{level}", cells.detach().float().clone())

    def forward(self, level: int, features: Tensor, images: Tensor) -> Tensor:
        """Return anchors (GH * GW * A, 4) of one level; its stride is image size // grid size, as in torchvision."""
        cells = self.get_buffer(f"cells_{level}")
        (grid_height, grid_width), (height, width) = features.shape[-2:], images.shape[-2:]
        shifts_y = torch.arange(grid_height, device=cells.device) * (height // grid_height)
        shifts_x = torch.arange(grid_width, device=cells.device) * (width // grid_width)
        grid_y, grid_x = torch.meshgrid(shifts_y, shifts_x, indexing="ij")
        shifts = torch.stack((grid_x, grid_y, grid_x, grid_y), dim=-1).reshape(-1, 1, 4)
        return (shifts.to(cells.dtype) + cells.reshape(1, -1, 4)).reshape(-1, 4)


def cell_anchors_of(generator: nn.Module) -> list[Tensor]:
    """Return the cell anchors, which torchvision's AnchorGenerator makes only at its first use."""
    generator.set_cell_anchors(torch.float32, torch.device("cpu"))
    return list(generator.cell_anchors)


def feature_maps(backbone: nn.Module, images: Tensor) -> list[Tensor]:
    """Return the backbone's maps, finest first, whether it gives one tensor or a dict of them."""
    features = backbone(images)
    return [features] if isinstance(features, Tensor) else list(features.values())
