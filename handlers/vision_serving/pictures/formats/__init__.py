"""The image formats, a file each: `FORMATS` has all that this project knows of one.

base.py         what a format states, and limits that several have
jpeg.py, png.py, gif.py, tiff.py, bmp.py, avif.py, heif.py
png_chunks.py   what counts of a PNG, as a plain PNG
"""

import logging
from collections.abc import Sequence

import PIL.Image

from vision_serving.pictures.formats import avif, bmp, gif, heif, jpeg, png, tiff
from vision_serving.pictures.formats.base import Format

# By Pillow's names. The first whose signature fits a file counts.
FORMATS = {
    "JPEG": jpeg.FORMAT,
    "PNG": png.FORMAT,
    "WEBP": Format(suffixes=(".webp",), signatures=((8, b"WEBP"),)),
    "BMP": bmp.FORMAT,
    "TIFF": tiff.FORMAT,
    "GIF": gif.FORMAT,
    "AVIF": avif.FORMAT,
    "HEIF": heif.FORMAT,
}
# MPO: what Pillow calls a JPEG with more pictures behind it, as many phones write them.
SECOND_NAMES = {"MPO": "JPEG"}


def load_formats(formats: Sequence[str]) -> None:
    """Make Pillow ready for these formats, so that the first image need not wait. Raises ConfigError."""
    PIL.Image.init()
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    for name in formats:
        prepare = FORMATS[name].prepare
        if prepare is not None:
            prepare()


def format_of(opened: PIL.Image.Image) -> Format:
    name = opened.format or ""
    return FORMATS[SECOND_NAMES.get(name, name)]
