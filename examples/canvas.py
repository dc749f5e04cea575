"""Backgrounds to write on: tinted paper with a gradient, clutter and noise, and ink that contrasts with it."""

import numpy as np
from PIL import Image, ImageDraw

from examples.digits import FloatArray

MIN_CONTRAST = 55


def draw_background(size_hw: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """(H, W, 3) in [0, 255]: a base colour with a tint, brighter towards a random side."""
    height, width = size_hw
    base = rng.uniform(25, 230) + rng.uniform(-25, 25, size=3)
    angle = rng.uniform(0, 2 * np.pi)
    down, right = np.linspace(-0.5, 0.5, height), np.linspace(-0.5, 0.5, width)
    ramp = np.sin(angle) * down[:, None] + np.cos(angle) * right[None, :]
    canvas: FloatArray = (base + rng.uniform(0, 70) * ramp[..., None]).astype(np.float32)
    return canvas


def draw_clutter(canvas: FloatArray, count: int, rng: np.random.Generator) -> FloatArray:
    """`count` faint shapes on the canvas: lines across it, ellipses and rectangles, near the background's colour."""
    height, width = canvas.shape[:2]
    image = Image.fromarray(to_uint8(canvas))
    draw = ImageDraw.Draw(image)
    paper = canvas.mean(axis=(0, 1))
    for _ in range(count):
        red, green, blue = (int(value) for value in to_uint8(paper + rng.uniform(-35, 35, size=3)))
        colour = (red, green, blue)
        shape = rng.choice(["line", "ellipse", "rectangle"])
        if shape == "line":
            ends = rng.uniform(0, 1, size=4) * (width, height, width, height)
            draw.line(ends.tolist(), fill=colour, width=int(rng.integers(1, 4)))
            continue
        centre, radius = rng.uniform(0, 1, 2) * (width, height), rng.uniform(0.03, 0.25, 2) * min(height, width)
        box = [*(centre - radius).tolist(), *(centre + radius).tolist()]
        (draw.ellipse if shape == "ellipse" else draw.rectangle)(box, fill=colour)
    return np.array(image, dtype=np.float32)


def write_ink(canvas: FloatArray, ink: FloatArray, left: int, top: int, rng: np.random.Generator) -> None:
    """Blend one digit into the canvas, darker or lighter than what lies under it."""
    height, width = ink.shape
    patch = canvas[top : top + height, left : left + width]
    colour = choose_ink_colour(float(patch.mean()), rng)
    patch += ink[..., None] * (colour - patch)


def choose_ink_colour(paper: float, rng: np.random.Generator) -> FloatArray:
    """A colour at least MIN_CONTRAST from the paper's brightness, on a side that has the room."""
    rooms = {-1: paper, 1: 255 - paper}
    sides = [side for side, room in rooms.items() if room > MIN_CONTRAST + 20]
    side = int(rng.choice(sides))
    brightness = paper + side * rng.uniform(MIN_CONTRAST + 10, rooms[side])
    colour: FloatArray = (brightness + rng.uniform(-10, 10, size=3)).astype(np.float32)
    return colour


def add_noise(canvas: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Sensor noise with a standard deviation of 0 to 10 grey levels."""
    noise = rng.standard_normal(canvas.shape, dtype=np.float32)
    noisy: FloatArray = canvas + np.float32(rng.uniform(0, 10)) * noise
    return noisy


def to_uint8(canvas: FloatArray) -> np.ndarray:
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
