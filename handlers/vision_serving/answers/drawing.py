"""A prediction drawn onto its picture: boxes with labels, or the best classes with bars below.

`DRAWERS` has a function for each kind of prediction. Nothing here imports PyTorch: commands that draw do not wait for
it.
"""

import colorsys
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from vision_serving.answers.instance_drawing import draw_keypoints, paint_polygons, paint_run_lengths
from vision_serving.answers.label_placement import Colour, Rectangle, contrast, fit_text, place_labels, spell
from vision_serving.config import ColourConfig, ImageLimits
from vision_serving.pictures.decoding import open_image, read_picture, shrink_jpeg
from vision_serving.predictions import (
    Classification,
    ClassScore,
    Detection,
    Detections,
    KeypointDetection,
    MaskDetection,
    OrientedDetection,
    OrientedDetections,
    PolygonDetection,
    Prediction,
)

# As a PNG such a picture has at most 6 MB, whatever is in it: TorchServe ends a worker whose answer is over
# `max_response_size`, which is 6.5 MB where no config.properties raises it.
MAX_PIXELS = 2_000_000
MAX_SIDE = 2048
MIN_SIDE = 320  # smaller pictures are enlarged, so that what is written on them can be read
MIN_HEIGHT = 80  # of a strip, with what is left free below it
MIN_FONT_SIZE = 14
LABEL_WIDTH = 16  # font sizes; a label may be as wide as its box where that is more
MAX_LABELS = 200  # of more boxes only the best get one
MAX_ROWS = 20

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)
DARK: Colour = (32, 32, 32)
TRACK: Colour = (225, 225, 225)
BESIDE: Colour = (240, 240, 240)  # beside a strip that is narrower than what is written on it
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
LIGHTNESSES = (0.4, 0.55, 0.28)


@dataclass(frozen=True)
class Canvas:
    """The picture at the size that it is drawn on. font, line_width and padding suit that size."""

    image: PIL.Image.Image
    picture_size: tuple[int, int]
    font: Any
    line_width: int
    padding: int

    @property
    def line_height(self) -> int:
        return int(sum(self.font.getmetrics()))


def open_picture(encoded: bytes, limits: ImageLimits, colours: ColourConfig | None = None) -> PIL.Image.Image:
    """Decode an image as RGB, upright, a large JPEG at a part of its size. Raises as `decode_image` does."""
    with open_image(encoded, limits, _shrink_to_canvas) as opened:
        return read_picture(opened, colours or ColourConfig())


def _shrink_to_canvas(opened: PIL.Image.Image) -> None:
    shrink_jpeg(opened, lambda size_hw: 1 / picture_scale(size_hw[1], size_hw[0]))


def draw_prediction(image: PIL.Image.Image, prediction: Prediction) -> PIL.Image.Image:
    """Draw on a new RGB picture of at most MAX_SIDE and about MAX_PIXELS. image: RGB, upright, of any size."""
    return DRAWERS[type(prediction)](new_canvas(image), prediction)


def picture_scale(width: int, height: int) -> float:
    """Return the factor by which a picture is enlarged, or made smaller, to be drawn on."""
    enlarged = max(1.0, MIN_SIDE / min(width, height))
    return min(enlarged, MAX_SIDE / max(width, height), math.sqrt(MAX_PIXELS / (width * height)))


def class_colour(class_id: int) -> Colour:
    """Return the colour of a class, always the same; neighbours in number are far apart on the wheel of colours."""
    hue = (class_id * GOLDEN_RATIO) % 1.0
    channels = colorsys.hls_to_rgb(hue, LIGHTNESSES[class_id % len(LIGHTNESSES)], 0.85)
    red, green, blue = (round(channel * 255) for channel in channels)
    return red, green, blue


def ink_on(colour: Colour) -> Colour:
    """Return white or black, whichever is read better. One of them always has a contrast of 4.5 (WCAG AA) or more."""
    return max((WHITE, BLACK), key=lambda ink: contrast(ink, colour))


def new_canvas(image: PIL.Image.Image) -> Canvas:
    """Return a copy of the picture at the size that it is drawn on."""
    scale = picture_scale(*image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    canvas = PIL.Image.new("RGB", (max(width, MIN_SIDE), max(height, MIN_HEIGHT)), BESIDE)
    canvas.paste(image.resize((width, height), PIL.Image.Resampling.BICUBIC, reducing_gap=2.0))
    unit = math.sqrt(canvas.width * canvas.height)
    font = PIL.ImageFont.load_default(size=max(MIN_FONT_SIZE, round(unit / 50)))
    return Canvas(
        canvas, (width, height), font, line_width=max(2, round(unit / 400)), padding=max(3, round(unit / 300))
    )


def _draw_detections(canvas: Canvas, prediction: Detections) -> PIL.Image.Image:
    draw = PIL.ImageDraw.Draw(canvas.image)
    boxes = [_scale_box(detection, prediction, canvas.picture_size) for detection in prediction.detections]
    for detection in reversed(prediction.detections):
        _paint_mask(canvas, detection, _scale(prediction, canvas.picture_size))
    for detection, box in reversed(list(zip(prediction.detections, boxes, strict=True))):  # the best on top
        colour = class_colour(detection.class_id)
        if isinstance(detection, OrientedDetection):
            points = _scale_corners(detection, prediction, canvas.picture_size)
            _draw_turned_box(draw, points, colour, canvas.line_width)
        else:
            _draw_box(draw, box, colour, canvas.line_width)
        if isinstance(detection, KeypointDetection):
            scale, colours = _scale(prediction, canvas.picture_size), (colour, ink_on(colour))
            draw_keypoints(draw, detection.keypoints or (), scale, colours, 2 * canvas.line_width)
    _draw_labels(draw, canvas, prediction.detections[:MAX_LABELS], boxes[:MAX_LABELS])
    return canvas.image


def _paint_mask(canvas: Canvas, detection: Detection, scale: tuple[float, float]) -> None:
    colour = class_colour(detection.class_id)
    if isinstance(detection, PolygonDetection):
        paint_polygons(canvas.image, detection.polygons or (), scale, colour, canvas.line_width)
    elif isinstance(detection, MaskDetection) and detection.mask is not None:
        paint_run_lengths(canvas.image, detection.mask, canvas.picture_size, colour)


def _scale(prediction: Detections, picture_size: tuple[int, int]) -> tuple[float, float]:
    """Return by what x and y of the source are multiplied on the canvas."""
    return picture_size[0] / prediction.image.width, picture_size[1] / prediction.image.height


def _scale_box(detection: Detection, prediction: Detections, picture_size: tuple[int, int]) -> Rectangle:
    """Return the box in whole pixels of the canvas, right and bottom included, inside the picture."""
    width, height = picture_size
    scale_x, scale_y = _scale(prediction, picture_size)
    x1, y1, x2, y2 = detection.box
    left, top = min(round(x1 * scale_x), width - 1), min(round(y1 * scale_y), height - 1)
    return left, top, max(left, round(x2 * scale_x) - 1), max(top, round(y2 * scale_y) - 1)


def _draw_box(draw: PIL.ImageDraw.ImageDraw, box: Rectangle, colour: Colour, line_width: int) -> None:
    """Draw a frame within the box; a thin line around it, and one within, keep it visible on its own colour."""
    x1, y1, x2, y2 = box
    draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=ink_on(colour), width=line_width + 2)
    draw.rectangle(box, outline=colour, width=line_width)


def _scale_corners(
    detection: OrientedDetection, prediction: Detections, picture_size: tuple[int, int]
) -> list[tuple[float, float]]:
    """Return the corners in pixels of the canvas, which may lie beyond it."""
    scale_x, scale_y = _scale(prediction, picture_size)
    return [(x * scale_x, y * scale_y) for x, y in zip(detection.corners[::2], detection.corners[1::2], strict=True)]


def _draw_turned_box(
    draw: PIL.ImageDraw.ImageDraw, points: list[tuple[float, float]], colour: Colour, line_width: int
) -> None:
    """Draw a frame along the box, with thin lines beside it, as `_draw_box` does."""
    ring = [*points, *points[:2]]  # on past the first corner, so that it is joined like the others
    draw.line(ring, fill=ink_on(colour), width=line_width + 2, joint="curve")
    draw.line(ring, fill=colour, width=line_width, joint="curve")


def _draw_labels(
    draw: PIL.ImageDraw.ImageDraw, canvas: Canvas, detections: tuple[Detection, ...], boxes: list[Rectangle]
) -> None:
    texts = [_label_text(detection, box, canvas) for detection, box in zip(detections, boxes, strict=True)]
    sizes = [(math.ceil(canvas.font.getlength(text)) + 2 * canvas.padding, canvas.line_height) for text in texts]
    places = place_labels(boxes, sizes, canvas.image.size)
    labels = list(zip(detections, texts, places, sizes, strict=True))
    for detection, text, (x, y), (width, height) in reversed(labels):
        colour = class_colour(detection.class_id)
        draw.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
        draw.text((x + canvas.padding, y), text, fill=ink_on(colour), font=canvas.font)


def _label_text(detection: Detection, box: Rectangle, canvas: Canvas) -> str:
    """Return the label, shortened to what there is room for, and the score."""
    score = f"  {detection.score:.2f}"
    room = min(canvas.image.width, max(LABEL_WIDTH * canvas.font.size, box[2] - box[0])) - 2 * canvas.padding
    label = spell(detection.label) or f"class {detection.class_id}"
    return fit_text(label, canvas.font, room - canvas.font.getlength(score)) + score


def _draw_classes(canvas: Canvas, prediction: Classification) -> PIL.Image.Image:
    """Return a row for each class below the picture: its label and score, and a bar in its colour."""
    rows = prediction.classes[:MAX_ROWS]
    more = len(prediction.classes) - len(rows)
    row_height = canvas.line_height + 2 * canvas.padding + canvas.line_height // 4
    width, top = canvas.image.width, canvas.image.height
    height = top + row_height * len(rows) + canvas.padding * 2 + (canvas.line_height if more else 0)
    picture = PIL.Image.new("RGB", (width, height), WHITE)
    picture.paste(canvas.image)
    draw = PIL.ImageDraw.Draw(picture)
    for number, entry in enumerate(rows):
        _draw_class(draw, entry, canvas, top + canvas.padding + number * row_height)
    if more:
        place = (2 * canvas.padding, height - canvas.line_height - canvas.padding)
        draw.text(place, f"and {more} more", fill=DARK, font=canvas.font)
    return picture


def _draw_class(draw: PIL.ImageDraw.ImageDraw, entry: ClassScore, canvas: Canvas, top: int) -> None:
    left, right = 2 * canvas.padding, canvas.image.width - 2 * canvas.padding
    score = f"{entry.score:.3f}"
    score_width = canvas.font.getlength(score)
    label = spell(entry.label) or f"class {entry.class_id}"
    draw.text((left, top), fit_text(label, canvas.font, right - left - score_width - left), fill=DARK, font=canvas.font)
    draw.text((right - score_width, top), score, fill=DARK, font=canvas.font)
    bar_top = top + canvas.line_height + canvas.padding // 2
    bar_bottom = bar_top + canvas.line_height // 4
    draw.rectangle((left, bar_top, right, bar_bottom), fill=TRACK)
    draw.rectangle((left, bar_top, left + (right - left) * entry.score, bar_bottom), fill=class_colour(entry.class_id))


DRAWERS: dict[type[Prediction], Callable[[Canvas, Any], PIL.Image.Image]] = {
    Classification: _draw_classes,
    Detections: _draw_detections,
    OrientedDetections: _draw_detections,
}
