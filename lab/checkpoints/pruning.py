"""Structured pruning by hand, as its libraries leave a network: whole channels are gone."""

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

KEPT = 0.5


def narrow_blocks(network: nn.Module) -> None:
    """Keep the inner channels of each block of a ResNet whose weights are largest."""
    for block in network.modules():
        if isinstance(block, BasicBlock):
            strengths = block.conv1.weight.detach().abs().sum(dim=(1, 2, 3))
            kept = strengths.topk(int(KEPT * len(strengths))).indices.sort().values
            _select(block.conv1, "weight", kept)
            for name in ("weight", "bias", "running_mean", "running_var"):
                _select(block.bn1, name, kept)
            block.conv2.weight = nn.Parameter(block.conv2.weight.detach()[:, kept])


def _select(layer: nn.Module, name: str, kept: torch.Tensor) -> None:
    values = getattr(layer, name).detach()[kept]
    setattr(layer, name, nn.Parameter(values) if name in layer._parameters else values)
