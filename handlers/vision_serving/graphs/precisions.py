"""A graph in another precision than its weights: what PyTorch's own backends run."""

import torch
from torch import Tensor, nn

from vision_serving.config import Precision

AUTOCAST_DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


class AutocastGraph(nn.Module):
    """Matrix products and convolutions in 16 bits; in 32 what needs range, such as softmax, and all outputs."""

    def __init__(self, graph: nn.Module, dtype: torch.dtype, device_type: str) -> None:
        super().__init__()
        self.fp32_graph = graph  # not `graph`: torch.fx has that name for itself
        self.dtype = dtype
        self.device_type = device_type

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        with torch.autocast(self.device_type, self.dtype, cache_enabled=False):
            outputs = self.fp32_graph(pixels)
        return {name: values.float() if values.is_floating_point() else values for name, values in outputs.items()}


def in_precision(graph: nn.Module, precision: Precision, device_type: str) -> nn.Module:
    """Return the graph under autocast for bf16 and fp16, else as it is."""
    if precision not in AUTOCAST_DTYPES:
        return graph
    return AutocastGraph(graph, AUTOCAST_DTYPES[precision], device_type).eval()
