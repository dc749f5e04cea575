"""Pictures of one digit each, and the square that the classifier sees of them."""

import numpy as np
from PIL import Image

from examples.canvas import add_noise, draw_background, draw_clutter, to_uint8, write_ink
from examples.digits import Digits, draw_ink

INPUT_SIZE = 96


def draw_picture(master: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """One digit on a picture of any size from 80 to 240 pixels, inside the picture's central square."""
    short = int(rng.integers(80, 181))
    long = short if rng.random() < 0.5 else int(short * rng.uniform(1, 1.34))
    size_hw = (short, long) if rng.random() < 0.5 else (long, short)
    canvas = draw_clutter(draw_background(size_hw, rng), int(rng.integers(0, 4)), rng)
    ink = draw_ink(master, int(short * rng.uniform(0.45, 0.92)), rng)
    top, left = (
        (size - short) // 2 + int(rng.integers(0, short - extent + 1))
        for size, extent in zip(size_hw, ink.shape, strict=True)
    )
    write_ink(canvas, ink, left, top, rng)
    return Image.fromarray(to_uint8(add_noise(canvas, rng)))


def resize_and_crop(picture: Image.Image) -> Image.Image:
    """What the server does: the shortest edge to INPUT_SIZE, then the central square."""
    scale = INPUT_SIZE / min(picture.size)
    width, height = (round(side * scale) for side in picture.size)
    left, top = (width - INPUT_SIZE) // 2, (height - INPUT_SIZE) // 2
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + INPUT_SIZE, top + INPUT_SIZE))


def draw_example(index: int, rng: np.random.Generator, digits: Digits) -> tuple[np.ndarray, int]:
    """Digit number `index` (modulo their count), newly drawn: ((96, 96, 3) uint8, class id)."""
    number = index % len(digits)
    picture = draw_picture(digits.masters[number], rng)
    return np.array(resize_and_crop(picture)), int(digits.class_ids[number])
