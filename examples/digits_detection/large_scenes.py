"""Large scenes full of small digits: what tiles are for."""

import numpy as np
from PIL import Image

from examples.canvas import add_noise, draw_background, draw_clutter, to_uint8, write_ink
from examples.digits import Digits, draw_ink
from examples.digits_detection.scenes import Box, Scene, find_place

SIZE_HW = (1200, 1600)
DIGITS = 40
CLUTTER = 30


def draw_large_scene(digits: Digits, extents: tuple[int, int], rng: np.random.Generator) -> Scene:
    """A scene of 1600 x 1200. extents: of the long side of a digit in pixels, all as frequent on a log scale."""
    canvas = draw_clutter(draw_background(SIZE_HW, rng), CLUTTER, rng)
    boxes: list[Box] = []
    class_ids: list[int] = []
    for number in rng.integers(0, len(digits), size=DIGITS):
        extent = round(float(np.exp(rng.uniform(*np.log(extents)))))
        ink = draw_ink(digits.masters[number], extent, rng)
        box = find_place(ink.shape, SIZE_HW, boxes, rng)
        if box is None:
            continue
        write_ink(canvas, ink, box[0], box[1], rng)
        boxes.append(box)
        class_ids.append(int(digits.class_ids[number]))
    image = Image.fromarray(to_uint8(add_noise(canvas, rng)))
    return Scene(image, np.array(boxes, dtype=np.float32).reshape(-1, 4), np.array(class_ids, dtype=np.int64))
