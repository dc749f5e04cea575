"""Files that would cost too much: refused before Pillow opens them, or by what their header says."""

import PIL.Image

from vision_serving.config import ImageLimits
from vision_serving.errors import PayloadTooLargeError
from vision_serving.pictures.formats import FORMATS, format_of
from vision_serving.pictures.formats.base import FEW_PIXELS


def check_before_opening(encoded: bytes) -> None:
    """Raises a RequestError."""
    for known in FORMATS.values():
        if known.check_bytes is not None and known.fits(encoded):
            known.check_bytes(encoded)


def check_pixels(size: tuple[int, int], limits: ImageLimits) -> None:
    """Raise PayloadTooLargeError for too many pixels. size: width, height."""
    width, height = size
    pixels = width * height
    if pixels > limits.max_pixels:
        raise PayloadTooLargeError(
            f"the image has {width} x {height} = {pixels:,} pixels; the limit is {limits.max_pixels:,}"
        )


def check_after_opening(opened: PIL.Image.Image, encoded: bytes, limits: ImageLimits) -> None:
    """Raises a RequestError. Nothing is decoded yet."""
    check_pixels(opened.size, limits)
    width, height = opened.size
    pixels = width * height
    if pixels > FEW_PIXELS and pixels > limits.max_pixels_per_byte * len(encoded):
        raise PayloadTooLargeError(
            f"the image claims {width} x {height} = {pixels:,} pixels in {len(encoded):,} bytes; the limit is "
            f"{limits.max_pixels_per_byte:,} pixels a byte"
        )
    check = format_of(opened).check_opened
    if check is not None:
        check(opened, encoded, limits)
