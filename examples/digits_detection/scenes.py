"""Scenes of one to eight digits with their tight boxes, and the square that the detector sees of them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from examples.canvas import add_noise, draw_background, draw_clutter, to_uint8, write_ink
from examples.digits import Digits, FloatArray, draw_ink

INPUT_SIZE = 256
PADDING_GREY = 114
MAX_DIGITS = 8
MAX_OVERLAP = 0.04
PLACEMENT_TRIES = 20

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Scene:
    """boxes_xyxy: (M, 4) float32, the tight extent of each digit's ink in pixels. class_ids: (M,) int64."""

    image: Image.Image
    boxes_xyxy: FloatArray
    class_ids: np.ndarray


def draw_scene(digits: Digits, rng: np.random.Generator) -> Scene:
    """A scene of any size from 180 to 400 pixels, square or not."""
    size_hw = choose_size(rng)
    canvas = draw_clutter(draw_background(size_hw, rng), int(rng.integers(0, 12)), rng)
    numbers = rng.integers(0, len(digits), size=rng.integers(1, MAX_DIGITS + 1))
    return place_digits(canvas, digits, numbers, partial(choose_extent, max(size_hw)), rng)


def place_digits(
    canvas: FloatArray,
    digits: Digits,
    numbers: np.ndarray,
    choose_extent: Callable[[np.random.Generator], int],
    rng: np.random.Generator,
) -> Scene:
    """The canvas, written on, with those of the digits that find room. choose_extent: of a long side in pixels."""
    boxes: list[Box] = []
    class_ids: list[int] = []
    for number in numbers:
        ink = draw_ink(digits.masters[number], choose_extent(rng), rng)
        box = find_place(ink.shape, (canvas.shape[0], canvas.shape[1]), boxes, rng)
        if box is None:
            continue
        write_ink(canvas, ink, box[0], box[1], rng)
        boxes.append(box)
        class_ids.append(int(digits.class_ids[number]))
    image = Image.fromarray(to_uint8(add_noise(canvas, rng)))
    return Scene(image, np.array(boxes, dtype=np.float32).reshape(-1, 4), np.array(class_ids, dtype=np.int64))


def choose_size(rng: np.random.Generator) -> tuple[int, int]:
    long = int(rng.integers(180, 401))
    short = long if rng.random() < 0.4 else int(long * rng.uniform(0.6, 1))
    return (short, long) if rng.random() < 0.7 else (long, short)


def choose_extent(long_side: int, rng: np.random.Generator) -> int:
    """8 % to 40 % of the long side, small ones as frequent as large ones on a log scale."""
    return int(long_side * np.exp(rng.uniform(np.log(0.08), np.log(0.40))))


def find_place(
    extent_hw: tuple[int, ...], size_hw: tuple[int, int], taken: list[Box], rng: np.random.Generator
) -> Box | None:
    """A box of that extent that hardly touches those taken, or None when no try finds one."""
    (height, width), (room_h, room_w) = extent_hw, size_hw
    for _ in range(PLACEMENT_TRIES):
        top, left = int(rng.integers(0, room_h - height + 1)), int(rng.integers(0, room_w - width + 1))
        box = (left, top, left + width, top + height)
        if all(measure_overlap(box, other) <= MAX_OVERLAP for other in taken):
            return box
    return None


def measure_overlap(box: Box, other: Box) -> float:
    """The shared area as a share of the smaller box."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return max(0, width) * max(0, height) / smaller


def letterbox(scene: Scene, rng: np.random.Generator) -> Scene:
    """What the server does: scale to fit INPUT_SIZE, grey bars around; here they fall on either side or both."""
    scale = INPUT_SIZE / max(scene.image.size)
    width, height = (round(side * scale) for side in scene.image.size)
    share = rng.choice([0.0, 0.5, 1.0])
    left, top = int(share * (INPUT_SIZE - width)), int(share * (INPUT_SIZE - height))
    square = Image.new("RGB", (INPUT_SIZE, INPUT_SIZE), (PADDING_GREY,) * 3)
    square.paste(scene.image.resize((width, height), Image.Resampling.BILINEAR), (left, top))
    boxes = scene.boxes_xyxy * np.float32(scale) + np.array([left, top, left, top], dtype=np.float32)
    return Scene(square, boxes, scene.class_ids)


def draw_example(index: int, rng: np.random.Generator, digits: Digits) -> tuple[np.ndarray, FloatArray, np.ndarray]:
    """A new letterboxed scene: ((256, 256, 3) uint8, boxes (M, 4) in its pixels, class ids (M,))."""
    scene = letterbox(draw_scene(digits, rng), rng)
    return np.array(scene.image), scene.boxes_xyxy, scene.class_ids
