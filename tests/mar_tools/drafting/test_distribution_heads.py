"""A head of likelihoods of distances gets a `decode` that is written for it."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mar_tools.drafting.distribution_heads import FILE, find_distribution_head
from vision_serving.graphs.python_files import load_attribute

SIZE = (70, 96)  # 9 x 12, 5 x 6 and 3 x 3 cells
CELLS = {8: 108, 16: 30, 32: 9}
BINS = 6


def head(classes: int = 3, low: float = 0.0) -> dict[str, Tensor]:
    """Scores from `low` to 1, and distances that are logits."""
    generator = torch.Generator().manual_seed(0)
    scores = {f"s{stride}": torch.rand(2, count, classes, generator=generator) for stride, count in CELLS.items()}
    distances = {f"d{s}": torch.randn(2, count, 4 * BINS, generator=generator) for s, count in CELLS.items()}
    return {**{name: low + (1 - low) * values for name, values in scores.items()}, **distances}


@pytest.mark.parametrize("low", [0.0, -4.0], ids=["scores", "logits"])
def test_boxes_are_the_expected_distances_around_the_middle_of_a_cell(tmp_path: Path, low: float) -> None:
    outputs = head(low=low)
    found = find_distribution_head(outputs, SIZE)
    assert found is not None
    assert (found.classes, found.bins, list(found.grids)) == (3, BINS, [8, 16, 32])
    (tmp_path / FILE).write_bytes(found.write_decode())
    decoded = load_attribute(tmp_path, FILE, "decode")(outputs, SIZE)
    assert (decoded["boxes"].shape, decoded["scores"].shape) == ((2, 147, 4), (2, 147, 3))
    cell = 108 + 6 + 2  # row 1, column 2 of the grid of 16 pixels
    weights = [[math.exp(v) for v in side] for side in outputs["d16"][1, 8].reshape(4, BINS).tolist()]
    left, top, right, bottom = (sum(i * w for i, w in enumerate(side)) / sum(side) * 16 for side in weights)
    expected = [40 - left, 24 - top, 40 + right, 24 + bottom]
    assert decoded["boxes"][1, cell].tolist() == pytest.approx(expected, abs=1e-3)
    score = outputs["s16"][1, 8]
    assert torch.allclose(decoded["scores"][1, cell], score if low == 0 else score.sigmoid())


def without(name: str) -> dict[str, Tensor]:
    return {key: values for key, values in head().items() if key != name}


@pytest.mark.parametrize(
    "outputs",
    [
        without("d16"),
        {**head(), "more": torch.rand(2, 4)},
        {**head(), "s8": torch.rand(2, 107, 3)},
        {name: values.abs() for name, values in head().items()},
        {"rows": torch.rand(2, 147, 7)},
    ],
    ids=["a grid lacks", "another output", "no grid of this size", "no likelihoods", "YOLOX"],
)
def test_what_is_no_such_head_is_left_to_others(outputs: dict[str, Tensor]) -> None:
    assert find_distribution_head(outputs, SIZE) is None
