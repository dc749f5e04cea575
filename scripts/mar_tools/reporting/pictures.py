"""A picture, or a picture with its boxes drawn, small enough to be embedded whatever it shows."""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import PIL.Image

from mar_tools.images import read_image
from vision_serving.answers.drawing import draw_prediction, open_picture
from vision_serving.config import ColourConfig, ImageLimits
from vision_serving.errors import RequestError
from vision_serving.pictures.decoding import full_size_hw, open_image
from vision_serving.predictions import Detections, ImageSize

LONGEST_SIDE = 640  # pixels, with boxes
LONGEST_SIDE_PLAIN = 256
MOST_BYTES = 48_000  # of one picture: sixty of them are four megabytes as base64
QUALITIES = (85, 70, 50)

FindAnswer = Callable[[ImageSize], Detections | None]  # of an image of that size; None where nothing is drawn


@dataclass(frozen=True)
class Picture:
    """source: a data URI. problem: why there is none. size: in pixels, as embedded."""

    source: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""


def embed_picture(path: Path, colours: ColourConfig, find_answer: FindAnswer) -> Picture:
    """Return the picture of a file with its answer drawn, or why it cannot be shown."""
    try:
        encoded = read_image(path)
        with open_image(encoded, ImageLimits()) as opened:
            height, width = full_size_hw(opened)
        picture = open_picture(encoded, ImageLimits(), colours)
    except (OSError, RequestError) as error:
        return Picture(problem=f"cannot be shown: {getattr(error, 'strerror', None) or error}")
    answer = find_answer(ImageSize(width, height))
    if answer is None:
        return encode_small(picture, LONGEST_SIDE_PLAIN)
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return encode_small(draw_prediction(picture, answer), LONGEST_SIDE)


def encode_small(picture: PIL.Image.Image, longest_side: int) -> Picture:
    """Encode as a JPEG of at most MOST_BYTES: noise with less quality, then smaller."""
    picture = picture.copy()
    while True:
        picture.thumbnail((longest_side, longest_side))
        for quality in QUALITIES:
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=quality, optimize=True)
            if buffer.tell() <= MOST_BYTES:
                data = base64.b64encode(buffer.getvalue()).decode()
                return Picture(f"data:image/jpeg;base64,{data}", picture.width, picture.height)
        longest_side = longest_side * 3 // 4
