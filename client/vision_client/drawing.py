"""A picture with what was found on it, as SVG: sharp at any size, and letters of any alphabet.

One unit is a pixel of a page. `draw` is for one result; what is drawn on each kind stands in `list_shapes`.
"""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from vision_client.label_places import HEIGHT, MOST_CHARACTERS, SIZE, Label, clean, place_labels
from vision_client.pictures import SentPicture, Thumbnail, shrink
from vision_client.results import Detection, Detections, Explanation, ImageSize, Prediction

LONGEST_SIDE = 640
SHORTEST_LONG_SIDE = 320  # smaller pictures are enlarged, so that labels find room
DENSITY = 1.5  # pixels of the picture for each unit: screens have up to two or three
LABELLED = 60
DRAWN = 300
# As the playground has them: dark enough for white letters, and told apart by colour-blind eyes as far as ten can be.
COLOURS = (
    "#0b6bb8", "#b3400b", "#167a3c", "#a3248f", "#7a5a00", "#5b46c4", "#b01c3a", "#0a7a7f", "#5f6a00", "#455a75",
)  # fmt: skip
FOR, AGAINST = "#d7191c", "#2166ac"
# COCO's persons: which of the 17 points are joined.
BONES = (
    (0, 1), (0, 2), (1, 3), (2, 4), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10), (5, 11), (6, 12), (11, 12), (11, 13),
    (13, 15), (12, 14), (14, 16),
)  # fmt: skip
SEEN = 0.5  # a point of a lower score is hidden or outside
MASK_COLUMNS = 480  # of a mask that is drawn; a wider one is drawn in wider columns
FONT = "font-family:system-ui,sans-serif;font-size:12px;font-weight:600"
Scale = tuple[float, float]


def draw(
    prediction: Prediction, picture: SentPicture | None, longest_side: int = LONGEST_SIDE, labelled: int = LABELLED
) -> str:
    """Return the picture with boxes, masks, points, labels or a heat map on it. labelled: how many boxes have a label.

    Raises ValueError, with the reason, where there is no picture or it is not the one that was predicted.
    ImportError without Pillow.
    """
    if picture is None:
        raise ValueError("the result does not know its picture; give it: result.with_picture(picture)")
    content = picture.read()
    if content is None:
        reason = "is no longer kept" if picture.path is None else f"{picture.name} cannot be read any more"
        raise ValueError(f"the picture {reason}; give it: result.with_picture(picture)")
    thumbnail = shrink(content, round(longest_side * DENSITY))
    size: ImageSize = getattr(prediction, "image", ImageSize(thumbnail.width, thumbnail.height))
    if (size.width, size.height) != (thumbnail.width, thumbnail.height):
        found = f"{thumbnail.width} x {thumbnail.height}"
        raise ValueError(f"the picture has {found} pixels, and that of the result {size.width} x {size.height}")
    return _write_svg(prediction, thumbnail, longest_side, labelled)


def colour_of(class_id: int) -> str:
    return COLOURS[class_id % len(COLOURS)]


def _write_svg(prediction: Prediction, thumbnail: Thumbnail, longest_side: int, labelled: int) -> str:
    longest = max(thumbnail.width, thumbnail.height)
    shown = min(longest_side, max(longest, SHORTEST_LONG_SIDE))
    width, height = (max(1, round(side * shown / longest)) for side in (thumbnail.width, thumbnail.height))
    scale = (width / thumbnail.width, height / thumbnail.height)
    shapes = "".join(_list_shapes(prediction, scale, (width, height), labelled))
    gray = ' style="filter:grayscale(1)"' * isinstance(prediction, Explanation)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<image href="{thumbnail.url}" width="{width}" height="{height}" preserveAspectRatio="none"{gray}/>'
        f"{shapes}</svg>"
    )


def _list_shapes(prediction: Prediction, scale: Scale, size: tuple[int, int], labelled: int) -> Iterator[str]:
    if isinstance(prediction, Explanation):
        yield from _draw_heat_map(prediction, scale)
    if isinstance(prediction, Detections):
        form = str(prediction.extra.get("box_format", "xyxy"))
        drawn = prediction.detections[:DRAWN]
        boxes = [_scale(to_corners(found.box, form, prediction.image), scale) for found in drawn]
        for found, box in reversed(list(zip(drawn, boxes))):  # the best on top
            yield from _draw_detection(found, box, scale)
        yield from _draw_labels(drawn[:labelled], boxes[:labelled], size)


def to_corners(box: Sequence[float], form: str, image: ImageSize) -> tuple[float, float, float, float]:
    """Return (x1, y1, x2, y2) in pixels of the upright image, whatever form the request asked for."""
    x1, y1, x2, y2 = box
    if form.startswith("xywh"):
        x2, y2 = x1 + x2, y1 + y2
    if form.endswith("n"):
        return x1 * image.width, y1 * image.height, x2 * image.width, y2 * image.height
    return x1, y1, x2, y2


def _draw_detection(found: Detection, box: Sequence[float], scale: Scale) -> Iterator[str]:
    colour = colour_of(found.class_id)
    x1, y1, x2, y2 = box
    outline = _closed(_scale(found.corners, scale) if found.corners else (x1, y1, x2, y1, x2, y2, x1, y2))
    parts = [_closed(_scale(part, scale)) for part in found.extra.get("polygons") or ()]
    if found.extra.get("mask"):
        width, height = scale
        path = _mask_path(found.extra["mask"])
        yield f'<path transform="scale({width:.5g} {height:.5g})" d="{path}" fill="{colour}" fill-opacity=".45"/>'
    if parts:
        yield f'<path d="{"".join(parts)}" fill="{colour}" fill-opacity=".45"/>'
    for stroke, width in (("#fff", 4.0), (colour, 2.0)):  # light around dark is seen on any picture
        yield f'<path d="{outline}" fill="none" stroke="{stroke}" stroke-width="{width}" stroke-linejoin="round"/>'
    yield from _draw_points(found.extra.get("keypoints") or (), scale, colour)


def _draw_points(points: Sequence[Sequence[float]], scale: Scale, colour: str) -> Iterator[str]:
    places = [_scale((x, y), scale) if score >= SEEN else None for x, y, score in points]
    for first, second in BONES if len(places) == 17 else ():
        if (start := places[first]) and (end := places[second]):
            yield f'<path d="{_path((*start, *end))}" stroke="{colour}" stroke-width="2"/>'
    for place in filter(None, places):
        x, y = place
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}" stroke="#fff"/>'


def _draw_labels(
    detections: Sequence[Detection], boxes: Sequence[Sequence[float]], size: tuple[int, int]
) -> Iterator[str]:
    most = max(1, min(MOST_CHARACTERS, size[0] // SIZE - len(" 0.00")))  # fits, whatever letters they are
    labels = [Label(f"{clean(found.label, most)} {found.score:.2f}") for found in detections]
    for found, label, place in zip(detections, labels, place_labels(boxes, labels, size)):
        if place is None:
            continue  # it would cover another; the table has it
        x, y = place
        yield (
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{label.width:.1f}" height="{HEIGHT}" rx="2" '
            f'fill="{colour_of(found.class_id)}"/><text x="{x + label.margin:.1f}" y="{y + 12:.1f}" fill="#fff" '
            f'style="{FONT}" textLength="{label.width - 2 * label.margin:.1f}" lengthAdjust="spacingAndGlyphs">'
            f"{escape(label.text)}</text>"
        )


def _draw_heat_map(explanation: Explanation, scale: Scale) -> Iterator[str]:
    """Yield a rectangle a cell: red speaks for the class, blue against it, and the strongest cell is opaque."""
    found = explanation.heat_map
    x1, y1, x2, y2 = _scale(found.box, scale)
    width, height = (x2 - x1) / found.width, (y2 - y1) / found.height
    most = max((abs(value) for row in found.values for value in row), default=0.0) or 1.0
    for number, row in enumerate(found.values):
        for column, value in enumerate(row):
            yield (
                f'<rect x="{x1 + column * width:.2f}" y="{y1 + number * height:.2f}" width="{width:.2f}" '
                f'height="{height:.2f}" fill="{FOR if value > 0 else AGAINST}" '
                f'fill-opacity="{0.7 * abs(value) / most:.3f}" shape-rendering="crispEdges"/>'
            )


def _mask_path(mask: Any) -> str:
    """Return COCO's compressed run lengths as a path: column by column, outside and inside in turn."""
    height, width = mask["size"]
    runs = _read_runs(mask["counts"])
    if min(runs, default=0) < 0 or sum(runs) > height * width:
        raise ValueError("the run lengths of a mask are not those of its size")
    step, path, place = max(1, math.ceil(width / MASK_COLUMNS)), [], 0
    for number, run in enumerate(runs):
        while run:
            column, row = divmod(place, height)
            length = min(run, height - row)
            if number % 2 and column % step == 0:
                path.append(f"M{column} {row}h{step}v{length}h-{step}z")
            place, run = place + length, run - length
    return "".join(path)


def _read_runs(counts: str) -> list[int]:
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        digit = ord(character) - 48
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:  # the last digit of a number; its highest bit is the sign
            value -= (digit & 16) << (shift - 4)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def _scale(numbers: Sequence[float], scale: Scale) -> tuple[float, ...]:
    return tuple(number * scale[place % 2] for place, number in enumerate(numbers))


def _path(numbers: Sequence[float]) -> str:
    pairs = zip(numbers[::2], numbers[1::2])
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in pairs)


def _closed(numbers: Sequence[float]) -> str:
    return f"{_path(numbers)}Z" if numbers else ""
