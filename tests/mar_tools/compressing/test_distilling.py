"""What a teacher's answers are worth to a loss, and what it sees."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from torch.nn import functional

from mar_tools.compressing.distilling import TaughtDataset, distil_loss
from mar_tools.training.folders import LabelledPicture
from mar_tools.training.pictures import new_change
from vision_serving.config import PreprocessingConfig, ResizeConfig


def prepare(size: int) -> PreprocessingConfig:
    return PreprocessingConfig(resize=ResizeConfig(mode="exact", size=(size, size)), mean=(0.5,) * 3, std=(0.5,) * 3)


def test_the_temperature_is_inside_of_both_softmaxes() -> None:
    logits, taught = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[3.0, 0.0, -1.0]])
    soft, target = (functional.softmax(each / 4, dim=1) for each in (logits, taught))
    expected = 16 * float((target * (target / soft).log()).sum())
    assert float(distil_loss(logits, taught, 4.0)) == pytest.approx(expected, rel=1e-5)
    assert float(distil_loss(taught, taught, 4.0)) == pytest.approx(0, abs=1e-6)


def test_the_gradients_keep_their_size_at_any_temperature() -> None:
    """As Hinton et al. derive for high temperatures: the distance of the logits, divided by the classes."""
    sizes = []
    for temperature in (20.0, 40.0):
        logits = torch.tensor([[1.0, -1.0]], requires_grad=True)
        distil_loss(logits, torch.tensor([[-1.0, 1.0]]), temperature).backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        sizes.append(float(logits.grad.abs().max()))
    assert sizes == pytest.approx([1.0, 1.0], rel=0.01)


@pytest.mark.parametrize("strength", ["none", "light"])
def test_the_teacher_sees_the_same_changed_picture_at_its_own_size(tmp_path: Path, strength: str) -> None:
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:, 20:] = 255
    PIL.Image.fromarray(pixels).save(tmp_path / "halves.png")
    pictures = [LabelledPicture(path=tmp_path / "halves.png", digest="", class_id=1)]
    change = new_change(strength, False, prepare(32))  # type: ignore[arg-type]
    own, class_id, taught = TaughtDataset(pictures, prepare(16), prepare(32), change, seed=0)[0]
    assert (own.shape, class_id, taught.shape) == ((16, 16, 3), 1, (32, 32, 3))
    smaller = functional.avg_pool2d(taught.permute(2, 0, 1).float(), 2)
    assert float((smaller - own.permute(2, 0, 1)).abs().mean()) < 8
