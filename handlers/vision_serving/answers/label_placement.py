"""What is written on pictures: text that the font can show, of a width that fits, where it covers the least."""

import unicodedata
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Colour: TypeAlias = tuple[int, int, int]
Rectangle: TypeAlias = tuple[int, int, int, int]  # left, top, right, bottom
Size: TypeAlias = tuple[int, int]  # width, height
Corner: TypeAlias = tuple[int, int]  # left, top

MAX_CHARS = 200
ELLIPSIS = "…"
# All that Pillow's built-in font can show.
CHARACTERS = frozenset(map(chr, range(32, 127))) | frozenset("©«°±´·»‘’“”…‹›⁄™")  # noqa: RUF001
STEPS_INSIDE = 8  # places for a label down the inside of its box


def contrast(first: Colour, second: Colour) -> float:
    """Return the contrast ratio of two sRGB colours, from 1 to 21 (WCAG 2)."""
    darker, lighter = sorted((_luminance(first), _luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: Colour) -> float:
    channels = [value / 255 for value in colour]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def spell(text: str) -> str:
    """Spell a text in one line of the font's characters, without accents; empty where others are needed."""
    line = " ".join(text[:MAX_CHARS].split())
    spelled = "".join(character if character in CHARACTERS else _without_accents(character) for character in line)
    return spelled if CHARACTERS.issuperset(spelled) else ""


def _without_accents(character: str) -> str:
    return "".join(part for part in unicodedata.normalize("NFKD", character) if not unicodedata.combining(part))


def fit_text(text: str, font: Any, width: float) -> str:
    """Return the text, or as much of its beginning as fits into so many pixels with an ellipsis."""
    if font.getlength(text) <= width:
        return text
    fitting, too_long = 0, len(text)
    while too_long - fitting > 1:
        middle = (fitting + too_long) // 2
        if font.getlength(text[:middle].rstrip() + ELLIPSIS) <= width:
            fitting = middle
        else:
            too_long = middle
    return text[:fitting].rstrip() + ELLIPSIS


def place_labels(boxes: Sequence[Rectangle], sizes: Sequence[Size], canvas: Size) -> list[Corner]:
    """Return the left top corner of each box's label: the first place that covers the least of earlier labels."""
    taken = np.empty((len(boxes), 4), dtype=np.int64)
    for number, (box, size) in enumerate(zip(boxes, sizes, strict=True)):
        places = _list_places(box, size, canvas)
        labels = np.concatenate((places, places + size), axis=1)
        covered = _shared_areas(labels, taken[:number]).sum(axis=1)
        taken[number] = labels[covered.argmin()]
    return [(left, top) for left, top in taken[:, :2].tolist()]


def _list_places(box: Rectangle, size: Size, canvas: Size) -> NDArray[np.int64]:
    """List left top corners (P, 2), best first: above the box, below it, down its inside, each left and right."""
    x1, y1, x2, y2 = box
    width, height = size
    inside = np.linspace(y1, max(y1, y2 + 1 - height), STEPS_INSIDE).round().tolist()
    tops = [top for top in (y1 - height, y2 + 1) if 0 <= top <= canvas[1] - height] + inside
    places = np.array([(left, top) for top in tops for left in (x1, x2 + 1 - width)], dtype=np.int64)
    return places.clip(0, (canvas[0] - width, canvas[1] - height))


def _shared_areas(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (N, M) from (N, 4) and (M, 4): pixels that two rectangles have in common."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    areas: NDArray[np.int64] = (high - low).clip(min=0).prod(axis=2)
    return areas
