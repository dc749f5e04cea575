"""`torch.export` of a graph with a dynamic batch."""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

MAX_BATCH = 1024


def export_program(graph: nn.Module, pixels: Tensor, strict: bool = False) -> ExportedProgram:
    """pixels: uint8 (2, H, W, 3), of the only size that it will take. Raises whatever torch.export raises."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(graph, (pixels,), dynamic_shapes=(dynamic_batch(),), strict=strict)


def dynamic_batch() -> Mapping[int, Dim]:
    return {0: Dim("batch", min=1, max=MAX_BATCH)}
