"""`torch.export` of a graph, with a dynamic batch, and dynamic height and width where the model takes any."""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

MAX_BATCH = 1024
MAX_SIDE = 4096


def export_program(graph: nn.Module, pixels: Tensor, has_fixed_size: bool, strict: bool = False) -> ExportedProgram:
    """pixels: uint8 (2, H, W, 3) to trace with. Raises whatever torch.export raises."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = (dynamic_dimensions(has_fixed_size),)
        return torch.export.export(graph, (pixels,), dynamic_shapes=shapes, strict=strict)


def dynamic_dimensions(has_fixed_size: bool) -> Mapping[int, Dim]:
    batch = {0: Dim("batch", min=1, max=MAX_BATCH)}
    if has_fixed_size:
        return batch
    return {**batch, 1: Dim("height", min=32, max=MAX_SIDE), 2: Dim("width", min=32, max=MAX_SIDE)}
