import matplotlib
import numpy as np
import PIL.Image
import pytest
import torch

from vision_serving.explaining.attribution import Attribution
from vision_serving.explaining.heat_maps import INFERNO, draw_explanation, spread_intensity, to_heat_map
from vision_serving.geometry import ImageGeometry
from vision_serving.predictions import Explanation, HeatMap, ImageSize

Box = tuple[float, float, float, float]


def explanation(values: list[list[float]], box: Box, size: tuple[int, int]) -> Explanation:
    heat_map = HeatMap(len(values), len(values[0]), box, tuple(map(tuple, values)))
    return Explanation(0, "cat", 0.9, "occlusion", heat_map, ImageSize(*size))


def test_a_map_is_placed_in_pixels_of_the_source_with_six_digits() -> None:
    attribution = Attribution(torch.tensor([[1 / 3, -2e-7], [12345678.0, 0.0]]), (5, 4))
    found = to_heat_map(attribution, ImageGeometry(source_hw=(100, 100), scale_hw=(0.5, 0.25), offset_hw=(-2.0, 1.0)))
    assert found == HeatMap(2, 2, (-4.0, 4.0, 28.0, 24.0), ((0.333333, -2e-07), (12345700.0, 0.0)))


def test_the_colours_are_those_of_matplotlibs_inferno() -> None:
    published = 255 * matplotlib.colormaps["inferno"](np.linspace(0, 1, len(INFERNO)))[:, :3]
    assert np.abs(INFERNO - published).max() < 2


def test_intensity_lies_in_the_box_and_is_scaled_to_the_picture() -> None:
    found = spread_intensity(explanation([[0, 0], [0, 4]], (20, 0, 60, 40), (80, 40)), (40, 20))
    assert found.shape == (20, 40)
    assert np.unravel_index(found.argmax(), found.shape)[0] >= 14
    assert found[17, 27] == pytest.approx(1)
    assert (found[:, :9] == 0).all()
    assert (found[:, 31:] == 0).all()
    assert (found[:4] == 0).all()


@pytest.mark.parametrize("values", [[[0.0]], [[-1.0]], [[1e-30]], [[3e38, -3e38]]], ids=str)
def test_any_finite_map_can_be_drawn(values: list[list[float]]) -> None:
    item = explanation(values, (0, 0, 30, 20), (30, 20))
    drawn = draw_explanation(item, PIL.Image.new("RGB", (30, 20), (128, 128, 128)), 1024)
    assert drawn.size == (30, 20)


def test_a_strip_that_is_letterboxed_is_drawn_within_its_own_size() -> None:
    item = explanation([[1.0] * 8] * 8, (0, -2048, 4096, 2048), (4096, 1))
    drawn = draw_explanation(item, PIL.Image.new("RGB", (4096, 1)), 1024)
    assert drawn.size == (1024, 1)
