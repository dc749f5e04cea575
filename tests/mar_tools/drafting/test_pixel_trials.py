"""Which scaling of pixels a draft states: the one that the network is surest with, where enough pictures say so."""

from pathlib import Path

import pytest
import torch
from fakes import encode_image, noise_image
from torch import Tensor, nn

from mar_tools.drafting.drafts import Noted
from mar_tools.drafting.output_forms import Reading
from mar_tools.drafting.pixel_trials import choose_scaling, scalings_of

RESIZE = {"resize": {"mode": "exact", "size": [16, 16]}}
USUAL, LEVELS = [0, 0, 0], "pixels in [0, 255] rgb"


class SurerOfLevels(nn.Module):
    """One box a picture, with a score that is `more` higher for pixels in [0, 255]."""

    def __init__(self, more: float) -> None:
        super().__init__()
        self.more = more

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        scores = 0.5 + self.more * (images.amax((1, 2, 3)) > 10).float()
        return {"boxes": torch.tensor([[1.0, 1, 9, 9]]).expand(len(images), 1, 4), "scores": scores.reshape(-1, 1, 1)}


@pytest.mark.parametrize(
    ("count", "more", "is_chosen", "told"),
    [
        (8, 0.08, True, "on 8 of"),
        (8, 0.03, False, "on 8 of"),
        (2, 0.08, False, "which are too few to tell: give 8 with --images"),
        (2, 0.2, True, "on 2 of"),
        (8, 0.0, False, "on 8 of"),
    ],
    ids=["enough pictures", "no clear difference", "few pictures", "few that differ much", "no difference"],
)
def test_few_pictures_choose_a_scaling_only_by_a_large_difference(
    count: int, more: float, is_chosen: bool, told: str, tmp_path: Path
) -> None:
    for number in range(count):
        (tmp_path / f"{number}.png").write_bytes(encode_image(noise_image(number, (20, 20))))
    scaling = choose_scaling(SurerOfLevels(more), Reading("detection"), RESIZE, tmp_path, scalings_of(3))
    std = scaling.values["std"]
    assert isinstance(std, Noted)
    assert ("the network is surest with it" in std.why) == is_chosen
    assert (LEVELS in std.why) == is_chosen
    assert scaling.values["mean"].value == USUAL
    assert told in scaling.notes[0]
