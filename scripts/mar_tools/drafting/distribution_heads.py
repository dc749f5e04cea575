"""Heads that give, for each side of a box, how likely each distance is: PicoDet and others with Generalized Focal Loss.

No format of `output:` reads them, so a file with `decode` is written beside the recipe.
Source: Li et al., Generalized Focal Loss, 2020, https://arxiv.org/abs/2006.04388.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from vision_serving.geometry import SizeHW

FILE = "decode_distances.py"
STRIDES = (8, 16, 32, 64, 128)
SIDES, LEAST_BINS = 4, 4
SOURCE = '''"""Written by new_recipe.py, yours to change: boxes from the likelihood of each distance to their sides.

Each grid gives scores (N, cells, C), and for each side of a box the likelihoods of 0, 1, ... cells (N, cells, 4 x B).
"""

import torch

GRIDS = {{  # pixels of a cell: the names of the scores and of the distances
{grids}
}}


def decode(outputs, size_hw):
    boxes, scores = [], []
    for stride, (score, distance) in GRIDS.items():
        rows, columns = -(-size_hw[0] // stride), -(-size_hw[1] // stride)
        y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
        centres = torch.stack((x, y), dim=-1).flatten(0, 1)
        likely = outputs[distance].unflatten(-1, (4, {bins})).softmax(-1)
        sides = likely @ torch.arange({bins}, dtype=likely.dtype)
        boxes.append(torch.cat((centres - sides[..., :2], centres + sides[..., 2:]), dim=-1) * stride)
        scores.append(outputs[score]{activation})
    return {{"boxes": torch.cat(boxes, dim=1), "scores": torch.cat(scores, dim=1)}}
'''


@dataclass(frozen=True)
class DistributionHead:
    """grids: pixels of a cell -> the names of its scores (N, cells, classes) and its distances (N, cells, 4 x bins)."""

    grids: Mapping[int, tuple[str, str]]
    classes: int
    bins: int
    has_logits: bool

    def write_decode(self) -> bytes:
        """Return a Python file with `decode(outputs, size_hw)`."""
        grids = "\n".join(f"    {stride}: {names!r}," for stride, names in self.grids.items()).replace("'", '"')
        activation = ".sigmoid()" if self.has_logits else ""
        return SOURCE.format(grids=grids, bins=self.bins, activation=activation).encode()


def find_distribution_head(outputs: Mapping[str, Tensor], size_hw: SizeHW) -> DistributionHead | None:
    """Return a head whose outputs are two for each grid, (N, cells, C) and (N, cells, 4 x B); None for any other."""
    strides = {-(-size_hw[0] // stride) * -(-size_hw[1] // stride): stride for stride in STRIDES}
    by_width: dict[int, dict[int, str]] = {}
    for name, values in outputs.items():
        if values.dim() != 3 or values.shape[1] not in strides:
            return None
        by_width.setdefault(values.shape[2], {})[strides[values.shape[1]]] = name
    grids = list(by_width.values())
    if len(grids) != 2 or grids[0].keys() != grids[1].keys() or 2 * len(grids[0]) != len(outputs):
        return None
    widths = [width for width in by_width if width % SIDES == 0 and width >= SIDES * LEAST_BINS]
    distances = [width for width in widths if _least(outputs, by_width[width]) < 0]
    if len(distances) != 1:
        return None
    (classes,) = by_width.keys() - set(distances)
    pairs = {stride: (by_width[classes][stride], by_width[distances[0]][stride]) for stride in sorted(grids[0])}
    return DistributionHead(pairs, classes, distances[0] // SIDES, _least(outputs, by_width[classes]) < 0)


def _least(outputs: Mapping[str, Tensor], names: Mapping[int, str]) -> float:
    return min(float(outputs[name].min()) for name in names.values())
