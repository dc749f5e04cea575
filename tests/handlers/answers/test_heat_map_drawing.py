"""Explanations drawn: both signs, label, score and scale, and words where there is nothing to see."""

from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
from numpy.typing import NDArray

from vision_serving.answers.drawing import MAX_PIXELS, MAX_SIDE, MIN_SIDE
from vision_serving.answers.heat_map_drawing import draw_explanation, spread_values
from vision_serving.predictions import Explanation, HeatMap, ImageSize

Box = tuple[float, float, float, float]
SIZE = (400, 320)
WHOLE = (0.0, 0.0, 400.0, 320.0)
LEFT_FOR = [[2.0, 2.0, -1.0, -1.0]] * 4
GRAYS = {"black": 0, "gray": 128, "white": 255}


def explanation(
    values: list[list[float]], box: Box = WHOLE, size: tuple[int, int] = SIZE, method: str = "occlusion"
) -> Explanation:
    heat_map = HeatMap(len(values), len(values[0]), box, tuple(map(tuple, values)))
    return Explanation(3, "cat", 0.8734, method, heat_map, ImageSize(*size))


def draw(values: list[list[float]], gray: int = 128, **others: Any) -> NDArray[np.int_]:
    """Return the drawn pixels (H, W, 3)."""
    picture = PIL.Image.new("RGB", others.get("size", SIZE), (gray,) * 3)
    return np.asarray(draw_explanation(picture, explanation(values, **others))).astype(int)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is written on a picture."""
    texts: list[str] = []
    write = PIL.ImageDraw.ImageDraw.text

    def note(draw: PIL.ImageDraw.ImageDraw, place: Any, text: str, *arguments: Any) -> None:
        texts.append(text)
        write(draw, place, text, *arguments)

    monkeypatch.setattr(PIL.ImageDraw.ImageDraw, "text", note)
    return texts


@pytest.mark.parametrize("gray", GRAYS.values(), ids=GRAYS)
def test_what_speaks_for_the_class_is_red_and_what_speaks_against_it_blue(gray: int) -> None:
    drawn = draw(LEFT_FOR, gray)
    red, _, blue = np.moveaxis(drawn[:320], -1, 0)
    assert (red - blue)[:, :150].min() > 60
    assert (blue - red)[:, 250:].min() > 20  # half as strong


@pytest.mark.parametrize("gray", GRAYS.values(), ids=GRAYS)
def test_where_nothing_speaks_the_picture_is_seen_in_gray(gray: int) -> None:
    drawn = draw([[0.0, 0.0], [0.0, 0.0]], gray)[:320]
    assert (drawn == drawn[0, 0, 0]).all()
    assert drawn[0, 0, 0] == (gray + 255) // 2


def test_label_score_method_and_both_ends_of_the_scale_are_written(written: list[str]) -> None:
    draw(LEFT_FOR)
    assert written == ["  0.873  occlusion", "cat", "-2 against", "0", "for +2"]


def test_a_method_without_a_sign_has_a_scale_from_0(written: list[str]) -> None:
    drawn = draw([[0.0, 0.0125]], method="saliency")
    assert written == ["  0.873  saliency", "cat", "0", "", "matters 0.013"]
    assert (drawn[..., 0] >= drawn[..., 2]).all()  # nothing is blue


@pytest.mark.parametrize("method", ["occlusion", "integrated_gradients", "saliency"])
def test_a_map_of_zeros_says_so(written: list[str], method: str) -> None:
    draw([[0.0] * 3] * 3, method=method)
    assert written[2:] == ["All values are 0: no part matters"]


def test_the_scale_shows_the_colours_of_the_map() -> None:
    drawn = draw(LEFT_FOR, 240)
    rows = [row for row in drawn[320:] if row[20, 2] - row[20, 0] > 60 and row[-20, 0] - row[-20, 2] > 60]
    assert len(rows) >= 10  # blue on the left, red on the right
    assert np.ptp(rows[0][200]) < 12  # and nearly white between


def test_a_map_lies_in_its_box_and_is_scaled_to_the_picture() -> None:
    found = spread_values(explanation([[0, 0], [0, 4]], (20, 0, 60, 40), (80, 40)), (40, 20), largest=4)
    assert found.shape == (20, 40)
    assert np.unravel_index(found.argmax(), found.shape)[0] >= 14
    assert found[17, 27] == pytest.approx(1)
    assert (found[:, :9] == 0).all()
    assert (found[:, 31:] == 0).all()
    assert (found[:4] == 0).all()


@pytest.mark.parametrize("values", [[[0.0]], [[-1.0]], [[1e-30]], [[1e-45]], [[3e38, -3e38]]], ids=str)
def test_any_finite_map_can_be_drawn(values: list[list[float]]) -> None:
    assert draw(values, box=(0, 0, 30, 20), size=(30, 20)).shape[1] == 480


@pytest.mark.parametrize("size", [(1, 1), (28, 28), (640, 427), (6000, 4000), (4096, 1), (1, 4096)], ids=str)
def test_every_picture_has_a_size_that_can_be_read_and_sent(size: tuple[int, int]) -> None:
    height, width, _ = draw(LEFT_FOR, box=(0, -2048, 4096, 2048), size=size).shape
    assert MIN_SIDE <= width <= MAX_SIDE
    assert width * height < MAX_PIXELS * 1.2  # a legend is a small part of it
