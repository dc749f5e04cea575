"""A picture of any size becomes the model's pixels, by NumPy alone: as the training library did it, to one level.

    pixels, geometry = preprocess(image, config)

image: uint8 (H, W, 3), upright RGB. config: what preprocessing.json says. The colours' mean and scale are in the model.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
SizeHW = tuple[int, int]
Filter = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Geometry:
    """Where a picture lies in the model's pixels: model = source * scale + offset, each (y, x)."""

    source_hw: SizeHW
    scale_hw: tuple[float, float]
    offset_hw: SizeHW


def preprocess(image: Image, config: Mapping[str, Any]) -> tuple[Image, Geometry]:
    """Resize, then crop at the centre or fill up. Return uint8 (1, H, W, 3) and where the picture lies in it."""
    resize = config["resize"]
    source_hw = (image.shape[0], image.shape[1])
    height, width = resized_hw(source_hw, resize)
    canvas = config.get("crop") or canvas_hw(resize) or (height, width)
    fill = 0 if canvas_hw(resize) is None else resize.get("pad_value", 114)
    pixels = np.empty((1, canvas[0], canvas[1], 3), np.uint8)
    pixels[:] = np.asarray(fill, np.uint8)
    target_y, start_y, length_y = overlap(canvas[0], height, config)
    target_x, start_x, length_x = overlap(canvas[1], width, config)
    pixels[0, target_y : target_y + length_y, target_x : target_x + length_x] = resize_region(
        image, (height, width), (start_y, start_x, length_y, length_x), config
    )
    scale_hw = (height / source_hw[0], width / source_hw[1])
    return pixels, Geometry(source_hw, scale_hw, (target_y - start_y, target_x - start_x))


def canvas_hw(resize: Mapping[str, Any]) -> SizeHW | None:
    """Return what every picture is filled up to; None where none is."""
    size = resize["size"] if resize["mode"] in ("letterbox", "fixed_height") else resize.get("pad_size")
    return None if size is None else (size[0], size[1])


def resized_hw(source_hw: SizeHW, resize: Mapping[str, Any]) -> SizeHW:
    """Return the size of a picture after resizing, before cropping or filling."""
    height, width = RESIZED[resize["mode"]](source_hw, resize)
    return max(1, height), max(1, width)


def _exact(_: SizeHW, resize: Mapping[str, Any]) -> SizeHW:
    return resize["size"][0], resize["size"][1]


def _letterbox(source_hw: SizeHW, resize: Mapping[str, Any]) -> SizeHW:
    ratio = max(source_hw[0] / resize["size"][0], source_hw[1] / resize["size"][1])
    return round(source_hw[0] / ratio), round(source_hw[1] / ratio)  # Python rounds halves to even numbers


def _cover(source_hw: SizeHW, resize: Mapping[str, Any]) -> SizeHW:
    ratio = min(source_hw[0] / resize["size"][0], source_hw[1] / resize["size"][1])
    return round(source_hw[0] / ratio), round(source_hw[1] / ratio)


def _fixed_height(source_hw: SizeHW, resize: Mapping[str, Any]) -> SizeHW:
    height, most = resize["size"]
    return height, min(most, math.ceil(height * source_hw[1] / source_hw[0]))


def _bounded_edges(source_hw: SizeHW, resize: Mapping[str, Any]) -> SizeHW:
    scale = min(resize["size"] / min(source_hw), resize["max_size"] / max(source_hw))
    return math.floor(source_hw[0] * scale), math.floor(source_hw[1] * scale)


def _shortest_edge(source_hw: SizeHW, resize: Mapping[str, Any]) -> SizeHW:
    shorter, longer = min(source_hw), max(source_hw)
    short_side, exact_side = resize["size"], float(resize["size"])
    if resize.get("max_size") is not None and longer / shorter * resize["size"] > resize["max_size"]:
        exact_side = resize["max_size"] * shorter / longer
        short_side = round(exact_side)
    long_side = longer if short_side == shorter else int(exact_side * longer / shorter)
    step = resize.get("multiple_of") or 1
    short_side, long_side = (max(step, side - side % step) for side in (short_side, long_side))
    return (short_side, long_side) if source_hw[0] <= source_hw[1] else (long_side, short_side)


RESIZED: dict[str, Callable[[SizeHW, Mapping[str, Any]], SizeHW]] = {
    "shortest_edge": _shortest_edge,
    "exact": _exact,
    "cover": _cover,
    "letterbox": _letterbox,
    "fixed_height": _fixed_height,
    "bounded_edges": _bounded_edges,
}


def overlap(target: int, source: int, config: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return the start in the target, the start in the source, and the length of what both share, centred."""
    if source >= target:
        surplus = source - target
        return 0, round(surplus / 2) if config.get("crop_offset", "round") == "round" else surplus // 2, target
    resize = config["resize"]
    at_start = resize.get("pad_place") == "top_left" or resize["mode"] == "fixed_height"
    return 0 if at_start else (target - source) // 2, 0, source


def resize_region(
    image: Image, size_hw: SizeHW, region: tuple[int, int, int, int], config: Mapping[str, Any]
) -> NDArray[np.uint8]:
    """Return the region (y, x, height, width) of a picture resized to `size_hw`: uint8 (height, width, 3)."""
    start_y, start_x, height, width = region
    source_hw = (image.shape[0], image.shape[1])
    if source_hw == size_hw:
        return image[start_y : start_y + height, start_x : start_x + width]
    name, smooth = config.get("interpolation", "bilinear"), config.get("antialias", True)
    rows = choose_taps(source_hw[0], size_hw[0], start_y, height, name, smooth)
    columns = choose_taps(source_hw[1], size_hw[1], start_x, width, name, smooth)
    passes = [(1, columns), (0, rows)]
    lost_height, lost_width = source_hw[0] - size_hw[0], source_hw[1] - size_hw[1]
    if config.get("pass_order") == "pillow13" and lost_height > max(0, 2 * lost_width):
        passes.reverse()
    low, high = int(rows[0].min()), int(rows[0].max())  # no other rows are looked at
    rows[0][:] -= low
    values: NDArray[Any] = image[low : high + 1]
    is_one_step = not smooth and name in ("bilinear", "bicubic")  # PyTorch computes these without a level between
    for axis, taps in passes:
        values = weigh(values, axis, taps)
        if not is_one_step:
            values = to_levels(values)
    return to_levels(values)


def to_levels(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Round to whole levels, and cut off what an overshooting filter makes."""
    return values if values.dtype == np.uint8 else np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


Taps = tuple[NDArray[np.int64], NDArray[np.float32]]  # (length, T) places in the source, and their weights


def weigh(values: NDArray[Any], axis: int, taps: Taps) -> NDArray[np.float32]:
    """Return the weighted sums along an axis of (H, W, 3)."""
    places, weights = taps
    shape = (-1, 1, 1) if axis == 0 else (-1, 1)
    total: NDArray[np.float32] = np.zeros(1, np.float32)
    for tap in range(places.shape[1]):
        total = total + np.take(values, places[:, tap], axis).astype(np.float32) * weights[:, tap].reshape(shape)
    return total


def choose_taps(source: int, target: int, start: int, length: int, name: str, smooth: bool) -> Taps:
    """Return which pixels of a side of `source` make each of `length` pixels, from `start` on, of one of `target`."""
    scale = source / target
    centres = (np.arange(start, start + length) + 0.5) * scale
    if name in ("nearest", "nearest-exact"):
        # As PyTorch and Pillow find the place: by a scale of 32 bits, and by adding up one of 64.
        rounded = np.arange(start, start + length, dtype=np.float32) * np.float32(scale)
        found = rounded if name == "nearest" else np.cumsum([0.5 * scale, *[scale] * (start + length - 1)])[start:]
        return np.floor(found).astype(np.int64).clip(0, source - 1)[:, None], np.ones((length, 1), np.float32)
    if not smooth and name in ("bilinear", "bicubic"):  # as torch.nn.functional.interpolate
        reach = 1 if name == "bilinear" else 2
        weigh_distance: Filter = triangle if name == "bilinear" else steep_cubic
        first = np.floor(centres - 0.5).astype(np.int64) - reach + 1
        places = first[:, None] + np.arange(2 * reach)
        return places.clip(0, source - 1), weigh_distance(np.abs(places + 0.5 - centres[:, None])).astype(np.float32)
    support, curve = FILTERS[name]
    stretch = max(scale, 1.0)
    first = np.maximum(np.floor(centres - support * stretch + 0.5), 0).astype(np.int64)
    last = np.minimum(np.floor(centres + support * stretch + 0.5), source).astype(np.int64)
    places = first[:, None] + np.arange(int((last - first).max()))
    weights = curve(np.abs(places + 0.5 - centres[:, None]) / stretch) * (places < last[:, None])
    weights /= weights.sum(axis=1, keepdims=True)
    if name in ("bilinear", "bicubic"):  # PyTorch's are whole numbers of 16 bits
        unit = 2 ** min(22, math.floor(math.log2((2**15 - 0.5) / weights.max())))
        weights = np.floor(weights * unit + 0.5) / unit
    return places.clip(0, source - 1), weights.astype(np.float32)


def triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1 - x, 0)


def _cubic(x: NDArray[np.float64], a: float) -> NDArray[np.float64]:
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, inner, np.where(x < 2, outer, 0))


def soft_cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return _cubic(x, -0.5)


def steep_cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return _cubic(x, -0.75)


def lanczos(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0)


def box(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(x <= 0.5, 1.0, 0.0)


def hamming(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(x < 1, np.sinc(x) * (0.54 + 0.46 * np.cos(np.pi * x)), 0)


FILTERS: dict[str, tuple[float, Filter]] = {
    "bilinear": (1.0, triangle),
    "bicubic": (2.0, soft_cubic),
    "lanczos": (3.0, lanczos),
    "box": (0.5, box),
    "hamming": (1.0, hamming),
}
