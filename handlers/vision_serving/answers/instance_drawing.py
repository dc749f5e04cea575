"""What a detector found of an object beyond its box, drawn: masks over the picture, keypoints as dots."""

from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageDraw

from vision_serving.answers.label_placement import Colour
from vision_serving.predictions import Keypoint, Polygons, RunLengths

OPACITY = 0.4  # of a mask: what it covers can still be seen
SURE = 0.5  # a keypoint with a lower score is a ring

Point = tuple[float, float]


def paint_polygons(image: PIL.Image.Image, polygons: Polygons, scale: Point, colour: Colour, line_width: int) -> None:
    """Paint the inside of outlines, which lie in pixels of the source; scale: by what to multiply x and y."""
    for outline in polygons:
        points = [(x * scale[0], y * scale[1]) for x, y in zip(outline[::2], outline[1::2], strict=True)]
        left, top = (int(min(values)) for values in zip(*points, strict=True))
        right, bottom = (int(max(values)) + 1 for values in zip(*points, strict=True))
        inside = PIL.Image.new("L", (right - left, bottom - top))
        moved = [(x - left, y - top) for x, y in points]
        PIL.ImageDraw.Draw(inside).polygon(moved, fill=round(255 * OPACITY))
        image.paste(colour, (left, top), inside)
        PIL.ImageDraw.Draw(image).line([*points, points[0]], fill=colour, width=line_width)


def paint_run_lengths(image: PIL.Image.Image, mask: RunLengths, size: tuple[int, int], colour: Colour) -> None:
    """Paint COCO's run lengths of the source over the picture, which has this size (width, height)."""
    height, width = mask.size
    counts = read_counts(mask.counts)
    columns = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height)
    inside = PIL.Image.fromarray(columns.T * np.uint8(255 * OPACITY))
    image.paste(colour, (0, 0), inside.resize(size, PIL.Image.Resampling.NEAREST))


def read_counts(text: str) -> list[int]:
    """Return the runs outside, inside, outside ... of COCO's text: five bits a character, the lowest first."""
    counts: list[int] = []
    value = shift = 0
    for character in text.encode():
        digit = character - 48
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:  # the last digit of a number; its highest bit is the sign
            value -= (digit & 16) << (shift - 4)
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def draw_keypoints(
    draw: PIL.ImageDraw.ImageDraw, points: Sequence[Keypoint], scale: Point, colours: tuple[Colour, Colour], radius: int
) -> None:
    """Draw a dot with a rim for each point. colours: of the class, and of the rim."""
    for x, y, score in points:
        place = (x * scale[0], y * scale[1])
        draw.circle(place, radius + 1, fill=colours[1])
        draw.circle(place, radius, fill=colours[0])
        if score < SURE:
            draw.circle(place, radius / 2, fill=colours[1])
