"""A linear model has explanations that can be computed by hand."""

import sys

import pytest
import torch
from torch import Tensor

from vision_serving.errors import NotSupportedError
from vision_serving.explaining.attribution import Attribution, ExplainedImage, attribute, sum_cells, to_heat_map
from vision_serving.geometry import ImageGeometry
from vision_serving.options import ExplanationOptions, Method
from vision_serving.predictions import HeatMap

HEIGHT, WIDTH = 12, 20
BASELINE = (124.0, 116.0, 104.0)
CLASS_ID = 1
WEIGHTS = torch.randn((HEIGHT * WIDTH * 3, 3), generator=torch.Generator().manual_seed(0))
PIXELS = torch.randint(0, 256, (1, HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def give_logits(pixels: Tensor) -> Tensor:
    return pixels.flatten(1).float() @ WEIGHTS


def attribute_linear(method: Method, pixels: Tensor = PIXELS, **options: int) -> Attribution:
    subject = ExplainedImage(pixels, CLASS_ID, BASELINE, give_logits, give_logits)
    return attribute(subject, ExplanationOptions(method=method, **options))  # type: ignore[arg-type]


def weights() -> Tensor:
    """Of the class: (H, W, 3)."""
    return WEIGHTS[:, CLASS_ID].reshape(HEIGHT, WIDTH, 3)


def contributions() -> Tensor:
    """Of each pixel to the logit, beside a picture of the baseline: (H, W)."""
    return (weights() * (PIXELS[0].float() - torch.tensor(BASELINE))).sum(dim=-1)


def difference() -> Tensor:
    """Of the logits of the image and of the baseline."""
    baseline = torch.tensor(BASELINE).expand(PIXELS.shape)
    return (give_logits(PIXELS) - give_logits(baseline))[0, CLASS_ID]


def test_integrated_gradients_are_gradient_times_distance_from_the_baseline() -> None:
    found = attribute_linear("integrated_gradients")
    assert found.cell_hw == (1, 1)
    torch.testing.assert_close(found.values, contributions(), rtol=1e-4, atol=1e-2)  # float32 sums of thousands


def test_integrated_gradients_add_up_to_the_difference_of_the_logits() -> None:
    torch.testing.assert_close(
        attribute_linear("integrated_gradients", steps=8).values.sum(), difference(), rtol=1e-4, atol=1e-1
    )


def test_saliency_is_the_largest_gradient_of_the_three_channels() -> None:
    torch.testing.assert_close(attribute_linear("saliency").values, weights().abs().amax(dim=-1))


def test_occlusion_is_the_fall_of_the_logit_averaged_over_the_windows_of_a_cell() -> None:
    """4 x 4 cells of 3 x 5 pixels; a window hides 2 x 2 cells, fewer at the edges."""
    found = attribute_linear("occlusion", cells=4)
    assert (tuple(found.values.shape), found.cell_hw) == ((4, 4), (3, 5))
    padded = torch.nn.functional.pad(contributions().reshape(4, 3, 4, 5).sum(dim=(1, 3)), (1, 1, 1, 1))
    windows = padded.unfold(0, 2, 1).unfold(1, 2, 1).sum(dim=(2, 3))
    expected = windows.unfold(0, 2, 1).unfold(1, 2, 1).mean(dim=(2, 3))
    torch.testing.assert_close(found.values, expected, rtol=1e-4, atol=1e-1)


def test_occlusion_runs_as_many_inferences_as_its_options_say_in_small_batches() -> None:
    counts: list[int] = []

    def infer(pixels: Tensor) -> Tensor:
        assert pixels.dtype == torch.uint8
        counts.append(len(pixels))
        return give_logits(pixels)

    subject = ExplainedImage(PIXELS, CLASS_ID, BASELINE, infer, give_logits)
    attribute(subject, ExplanationOptions(cells=4))
    assert sum(counts) == 1 + (4 + 1) ** 2
    assert max(counts) <= 8


@pytest.mark.parametrize("cells", [2, 7, 16])
def test_cells_cover_the_image_and_no_more_than_its_last_row_and_column_reach_beyond(cells: int) -> None:
    found = attribute_linear("occlusion", cells=cells)
    for count, size, side in zip(found.values.shape, found.cell_hw, (HEIGHT, WIDTH), strict=True):
        assert count <= cells
        assert (count - 1) * size < side <= count * size


@pytest.mark.parametrize("size_hw", [(64, 64), (65, 30), (224, 224), (800, 1333)])
def test_cells_of_gradients_are_few_and_keep_the_sum(size_hw: tuple[int, int]) -> None:
    values = torch.rand(size_hw, dtype=torch.float64)
    found = sum_cells(values)
    assert max(found.values.shape) <= 64
    torch.testing.assert_close(found.values.sum().double(), values.sum(), rtol=1e-4, atol=0)


def test_an_image_is_not_changed() -> None:
    before = PIXELS.clone()
    for method in ("occlusion", "integrated_gradients", "saliency"):
        attribute_linear(method)
    assert torch.equal(PIXELS, before)


def test_a_missing_captum_is_said_and_occlusion_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.delitem(sys.modules, "captum.attr", raising=False)
    with pytest.raises(NotSupportedError, match=r"requirements/explanations\.txt"):
        attribute_linear("saliency")
    assert attribute_linear("occlusion").values.shape == (6, 7)


def test_a_map_is_placed_in_pixels_of_the_source_with_six_digits() -> None:
    attribution = Attribution(torch.tensor([[1 / 3, -2e-7], [12345678.0, 0.0]]), (5, 4))
    found = to_heat_map(attribution, ImageGeometry(source_hw=(100, 100), scale_hw=(0.5, 0.25), offset_hw=(-2.0, 1.0)))
    assert found == HeatMap(2, 2, (-4.0, 4.0, 28.0, 24.0), ((0.333333, -2e-07), (12345700.0, 0.0)))
