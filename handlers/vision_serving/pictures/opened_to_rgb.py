"""An opened picture is decoded and becomes RGB: what is transparent in it, and what its frame does not cover."""

import PIL.Image
from PIL.ImageFile import ImageFile

from vision_serving.config import ColourConfig
from vision_serving.pictures.colours import Background, to_rgb
from vision_serving.pictures.formats import format_of

Box = tuple[int, int, int, int]


def load_rgb(opened: ImageFile, config: ColourConfig) -> PIL.Image.Image:
    """Decode an opened picture and return it as RGB. Raises what its decoder raises."""
    known = format_of(opened)
    box = opened.tile[0].extents if known.is_framed else None
    alpha = None
    if known.load is None:
        opened.load()
    else:
        alpha = known.load(opened)
    for kept in ("_decoder", "_fp"):  # WebP and AVIF keep what they decoded, PNG its bytes
        if hasattr(opened, kept):
            setattr(opened, kept, None)
    picture = to_rgb(opened, config, alpha)
    if box is not None and config.background != "none":
        _fill_around(picture, box, config.background)
    return picture


def _fill_around(picture: PIL.Image.Image, box: Box, background: Background) -> None:
    """Paint what the frame at `box` does not cover."""
    width, height = picture.size
    left, top, right, bottom = box
    sides = (0, 0, width, top), (0, bottom, width, height), (0, top, left, bottom), (right, top, width, bottom)
    for side in sides:
        if side[0] < side[2] and side[1] < side[3]:
            picture.paste(background, side)
