"""Real handwritten digits (scikit-learn's 8x8 set): the disjoint split, and one digit as an ink mask of any size."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

LABELS = [str(digit) for digit in range(10)]
TEST_SHARE = 0.25
SPLIT_SEED = 0  # not the training seed: a digit held out once is held out in every run
MASTER_SIZE = 96
INK_THRESHOLD = 0.2

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Digits:
    """Handwritten digits as smooth strokes.

    masters: (N, 96, 96) uint8, 255 is full ink. class_ids: (N,).
    """

    masters: NDArray[np.uint8]
    class_ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.class_ids)


@cache
def load_digit_split() -> tuple[Digits, Digits]:
    """The (train, test) digits: disjoint, stratified by class, the same in every run."""
    dataset = load_digits()
    class_ids = dataset.target.astype(np.int64)
    train, test = train_test_split(
        np.arange(len(class_ids)), test_size=TEST_SHARE, stratify=class_ids, random_state=SPLIT_SEED
    )
    masters = np.stack([enlarge(image / 16) for image in dataset.images])
    return Digits(masters[train], class_ids[train]), Digits(masters[test], class_ids[test])


def enlarge(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    """An 8x8 image in [0, 1] as a 96x96 mask with a margin for rotation and crisp edges."""
    padded = Image.fromarray(np.pad(image, 2).astype(np.float32))
    smooth = np.asarray(padded.resize((MASTER_SIZE, MASTER_SIZE), Image.Resampling.BICUBIC))
    ramp = np.clip((smooth - 0.25) / 0.5, 0, 1)
    return np.rint(255 * ramp * ramp * (3 - 2 * ramp)).astype(np.uint8)


def draw_ink(master: NDArray[np.uint8], long_side: int, rng: np.random.Generator) -> FloatArray:
    """The digit slightly turned, slanted and stretched, cut to its tight extent: (h, w) in [0, 1].

    The longer of h and w is `long_side`, or a pixel or two less.
    """
    turned = turn(Image.fromarray(master), rng)
    bounds = turned.getbbox()
    if bounds is None:
        raise ValueError("the digit has no ink")
    left, top, right, bottom = bounds
    scale = long_side / max(right - left, bottom - top)
    size = (round((right - left) * scale), round((bottom - top) * scale))
    ink = np.asarray(turned.crop(bounds).resize(size, Image.Resampling.LANCZOS), dtype=np.float32)
    return cut_to_ink(ink / np.float32(255))


def turn(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Rotate up to 10 degrees, slant up to 0.12, stretch the width up to 15 %, about the centre."""
    angle = np.deg2rad(rng.uniform(-10, 10))
    slant = rng.uniform(-0.12, 0.12)
    stretch = rng.uniform(0.87, 1.15)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotation @ np.array([[1 / stretch, slant], [0, 1]])
    centre = np.full(2, MASTER_SIZE / 2)
    offset = centre - matrix @ centre
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)


def cut_to_ink(ink: FloatArray) -> FloatArray:
    """Drop the outer rows and columns that hold nothing above the ink threshold."""
    rows = np.flatnonzero((ink > INK_THRESHOLD).any(axis=1))
    columns = np.flatnonzero((ink > INK_THRESHOLD).any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
