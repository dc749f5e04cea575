"""An opened picture is decoded and becomes RGB: what is transparent in it, and what its frame does not cover."""

import io

import numpy as np
import PIL.Image
from PIL.ImageFile import ImageFile

from vision_serving.config import ColourConfig
from vision_serving.pictures.colours import Background, read_strips, to_rgb
from vision_serving.pictures.cut_files import load_pixels

# Pillow brings the pixels of a PNG to 8 bits, but not the value that is transparent in it. By rawmode.
KEY_FACTORS = {"L;2": 85, "L;4": 17}
DEEP_GRAY, DEEP_RGB, LOW_BYTES = "I;16B", "RGB;16B", "RGB;16L"  # of RGB, Pillow keeps the high bytes, or the others
FRAMED = ("GIF", "PNG")  # formats of which the first frame may be smaller than the picture

Box = tuple[int, int, int, int]


def load_rgb(opened: ImageFile, config: ColourConfig) -> PIL.Image.Image:
    """Decode an opened picture and return it as RGB. Raises what its decoder raises."""
    box = opened.tile[0].extents if opened.format in FRAMED else None
    alpha = None
    if opened.format == "PNG" and "transparency" in opened.info:
        alpha = _load_with_key(opened)
    else:
        load_pixels(opened)
    for kept in ("_decoder", "_fp"):  # WebP and AVIF keep what they decoded, PNG its bytes
        if hasattr(opened, kept):
            setattr(opened, kept, None)
    picture = to_rgb(opened, config, alpha)
    if box is not None and config.background != "none":
        _fill_around(picture, box, config.background)
    return picture


def _load_with_key(opened: ImageFile) -> PIL.Image.Image | None:
    """Decode a PNG of which a colour is transparent; of 16 bits, return where it is not, as Pillow would compare 8."""
    rawmode, key = opened.tile[0].args, opened.info["transparency"]
    if rawmode not in (DEEP_GRAY, DEEP_RGB):
        if rawmode in KEY_FACTORS:
            opened.info["transparency"] = key * KEY_FACTORS[rawmode]
        load_pixels(opened)
        return None
    del opened.info["transparency"]
    halves = [opened]
    if rawmode == DEEP_RGB:
        assert isinstance(opened.fp, io.BytesIO)
        low = PIL.Image.open(io.BytesIO(opened.fp.getvalue()), formats=("PNG",))
        low.tile = [tile._replace(args=LOW_BYTES) for tile in opened.tile]
        halves.append(low)
    for half in halves:
        load_pixels(half)
    wanted = [key] if rawmode == DEEP_GRAY else np.divmod(key, 256)
    alpha = np.zeros((opened.height, opened.width), np.uint8)
    for half, levels in zip(halves, wanted, strict=True):
        for rows, strip in read_strips(half):
            differs = strip != levels
            alpha[rows] |= differs if strip.ndim == 2 else differs.any(axis=2)
    np.multiply(alpha, 255, out=alpha)
    return PIL.Image.fromarray(alpha)


def _fill_around(picture: PIL.Image.Image, box: Box, background: Background) -> None:
    """Paint what the frame at `box` does not cover."""
    width, height = picture.size
    left, top, right, bottom = box
    sides = (0, 0, width, top), (0, bottom, width, height), (0, top, left, bottom), (right, top, width, bottom)
    for side in sides:
        if side[0] < side[2] and side[1] < side[3]:
            picture.paste(background, side)
