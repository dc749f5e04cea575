"""What the examples do not answer with: masks, turned boxes, keypoints. The page's own functions draw them."""

import re
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vision_serving.results.masks import compress_counts

from .conftest import Shown

IMAGE = {"width": 30, "height": 20}
RUN = re.compile(r"M(\d+) (\d+)h1v(\d+)h-1z")
FOUND = {"class_id": 1, "label": "cat", "score": 0.9, "box": [2, 3, 20, 15]}
DRAW = """async answer => (await import(new URL('playground/drawing.js', document.baseURI))).drawDetections(answer)
    .map(item => [...item.querySelectorAll('path')]
        .map(one => [one.getAttribute('class'), one.getAttribute('d')]))"""


def draw(shown: Shown, found: dict[str, Any]) -> list[list[str]]:
    """Return class and path of each shape of one detection."""
    [shapes] = shown.page.evaluate(DRAW, {"detections": [{**FOUND, **found}], "image": IMAGE})
    return list(shapes)


def make_mask(share: float) -> NDArray[np.bool_]:
    return np.random.default_rng(0).random((IMAGE["height"], IMAGE["width"])) < share


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.97, 1.0])
def test_a_mask_is_drawn_pixel_for_pixel(share: float, shown: Shown) -> None:
    mask = make_mask(share)
    runs = [(inside, len(list(group))) for inside, group in groupby(mask.T.ravel())]
    counts = [0] * bool(runs[0][0]) + [length for _, length in runs]  # the first run is outside
    answer = {"mask": {"size": list(mask.shape), "counts": compress_counts(np.array(counts))}}
    drawn = np.zeros_like(mask)
    for kind, path in draw(shown, answer):
        for x, y, length in RUN.findall(path if kind == "mask" else ""):
            drawn[int(y) : int(y) + int(length), int(x)] = True
    np.testing.assert_array_equal(drawn, mask)


def test_polygons_are_drawn_as_they_are(shown: Shown) -> None:
    shapes = draw(shown, {"polygons": [[2, 3, 10, 3, 10, 9], [12, 10, 20, 10, 20, 15]]})
    assert ["mask", "M2 3L10 3L10 9ZM12 10L20 10L20 15Z"] in shapes


def test_a_turned_box_is_drawn_by_its_corners(shown: Shown) -> None:
    shapes = draw(shown, {"corners": [5, 3, 20, 8, 17, 15, 2, 10]})
    assert ["edge", "M5 3L20 8L17 15L2 10Z"] in shapes


def test_points_that_are_seen_are_drawn_and_joined(shown: Shown) -> None:
    """Of 17 points, as COCO's persons have them: nose and left eye are seen, the others are not."""
    points = [[5, 5, 0.9], [6, 4, 0.8], *[[9, 9, 0.1]] * 15]
    shapes = draw(shown, {"keypoints": points})
    assert ["edge", "M5 5L6 4"] in shapes
    assert [path for kind, path in shapes if kind == "point"] == ["M5 5h0", "M6 4h0"]


@pytest.mark.parametrize("nothing", [{"mask": None}, {"polygons": None}, {"polygons": []}, {"keypoints": None}])
def test_a_box_that_the_model_did_not_describe_is_a_box(nothing: dict[str, Any], shown: Shown) -> None:
    assert draw(shown, nothing) == draw(shown, {})
