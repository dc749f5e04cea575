"""Large scenes full of small digits: what tiles are for."""

import numpy as np

from examples.canvas import draw_background, draw_clutter
from examples.digits import Digits
from examples.digits_detection.scenes import Scene, place_digits

SIZE_HW = (1200, 1600)
DIGITS = 40
CLUTTER = 30


def draw_large_scene(digits: Digits, extents: tuple[int, int], rng: np.random.Generator) -> Scene:
    """A scene of 1600 x 1200. extents: of the long side of a digit in pixels, all as frequent on a log scale."""
    canvas = draw_clutter(draw_background(SIZE_HW, rng), CLUTTER, rng)

    def choose_extent(rng: np.random.Generator) -> int:
        return round(float(np.exp(rng.uniform(*np.log(extents)))))

    return place_digits(canvas, digits, rng.integers(0, len(digits), size=DIGITS), choose_extent, rng)
