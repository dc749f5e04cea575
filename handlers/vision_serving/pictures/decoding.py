"""Encoded bytes to uint8 RGB (H, W, 3): upright, within limits, or a RequestError that says why not."""

import io
import logging
import struct
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL.ImageFile import ImageFile

from vision_serving.config import ColourConfig, ImageLimits
from vision_serving.errors import (
    ImageDecodeError,
    OutOfResourcesError,
    PayloadTooLargeError,
    RequestError,
)
from vision_serving.log_lines import escape_lines
from vision_serving.pictures.colours import read_strips
from vision_serving.pictures.formats import FORMATS, format_of
from vision_serving.pictures.formats.base import EXIF_NAME
from vision_serving.pictures.limits import check_after_opening, check_before_opening, check_pixels
from vision_serving.pictures.opened_to_rgb import load_rgb
from vision_serving.pictures.unopened import explain_unopened

logger = logging.getLogger(__name__)

# Our own limit is checked as soon as a header is read. (Not by `catch_warnings`, which is not safe with threads.)
warnings.filterwarnings("ignore", category=PIL.Image.DecompressionBombWarning)
# What Pillow remarks on odd files: a sender could fill the log with it.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

Image: TypeAlias = NDArray[np.uint8]
Shrink: TypeAlias = Callable[[PIL.Image.Image], None]

# What decoders raise on broken input.
DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, LookupError, EOFError, ArithmeticError, struct.error, zlib.error, TypeError,
    RuntimeError,
)  # fmt: skip

EXIF_ORIENTATION, SHORT = 0x0112, 3
UPRIGHT = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}

# In an opened image's `info`: (width, height) as it is stored, however small it is decoded. No string, for the texts of
# a PNG come there under any.
FULL_SIZE = (0, 0)
TURNED = (5, 6, 7, 8)  # orientations whose height is stored as width
WHOLE_PIXELS = 4_000_000  # that are read at once; larger pictures are read in strips


def decode_image(
    encoded: bytes, limits: ImageLimits, colours: ColourConfig | None = None, shrink: Shrink | None = None
) -> Image:
    """Decode one image. Raises a RequestError: of decoding, size, format or memory."""
    with open_image(encoded, limits, shrink) as opened:
        return read_pixels(opened, colours or ColourConfig())


def open_image(encoded: bytes, limits: ImageLimits, shrink: Shrink | None = None) -> ImageFile:
    """Read the header of an image and check it. shrink: what is done to it before it is decoded.

    Raises as `decode_image`.
    """
    if not encoded:
        raise ImageDecodeError("the image is empty (0 bytes)")
    check_before_opening(encoded)
    with _blame_image():
        image = _open(encoded, limits)
        check_after_opening(image, encoded, limits)
    image.info[FULL_SIZE] = image.size
    if shrink is not None:
        shrink(image)
    return image


def _open(encoded: bytes, limits: ImageLimits) -> ImageFile:
    known = (FORMATS[name] for name in limits.formats)
    own = next((form.open for form in known if form.open is not None and form.fits(encoded)), None)
    try:
        opened = PIL.Image.open(io.BytesIO(encoded), formats=limits.formats) if own is None else own(encoded)
    except PIL.Image.DecompressionBombError as error:
        raise PayloadTooLargeError(f"the image has more pixels than the limit of {limits.max_pixels:,}") from error
    except RequestError:
        raise
    except DECODER_ERRORS as error:
        raise explain_unopened(encoded, limits, error) from error
    opened.info.pop("xmp", None)  # Pillow would turn a TIFF as it says
    return opened


def shrink_jpeg(opened: PIL.Image.Image, spare: Callable[[tuple[int, int]], float]) -> None:
    """Let a JPEG be decoded at 1/2, 1/4 or 1/8 of its size, in a fraction of the time.

    spare: by how much an image of an upright size (height, width) may shrink.
    """
    factors = format_of(opened).shrink_factors
    if not factors:
        return
    turned = _read_orientation(opened) in TURNED
    most = spare((opened.width, opened.height) if turned else (opened.height, opened.width))
    factor = next((factor for factor in factors if factor <= most), 1)
    if factor > 1:
        opened.draft(None, (opened.width // factor, opened.height // factor))


def read_pixels(opened: ImageFile, colours: ColourConfig) -> Image:
    """Decode an opened image, upright; it holds no pixels itself then.

    Raises ImageDecodeError, UnsupportedFormatError or OutOfResourcesError.
    """
    picture = read_picture(opened, colours)
    try:
        with _blame_image():
            return _to_array(picture)
    finally:
        picture.close()


def _to_array(picture: PIL.Image.Image) -> Image:
    if picture.width * picture.height <= WHOLE_PIXELS:
        return np.asarray(picture)
    pixels = np.empty((picture.height, picture.width, 3), np.uint8)
    for rows, strip in read_strips(picture):
        pixels[rows] = strip
    return pixels


def read_picture(opened: ImageFile, colours: ColourConfig) -> PIL.Image.Image:
    """Read a picture of mode RGB, as `read_pixels` does.

    What was opened holds no pixels afterwards, unless it is that picture.
    """
    with _blame_image():
        picture = load_rgb(opened, colours)
        orientation = _read_orientation(opened)
        if picture is not opened:
            opened.close()
        upright = _to_upright(picture, orientation)
        if upright is not picture:
            picture.close()
        return upright


def full_size_hw(opened: PIL.Image.Image) -> tuple[int, int]:
    """Return height and width of an opened image, upright, before it was shrunk."""
    width, height = opened.info[FULL_SIZE]
    return (width, height) if _read_orientation(opened) in TURNED else (height, width)


def wrap_pixels(data: bytes, size_hw: tuple[int, int], limits: ImageLimits) -> Image:
    """Return an image that came decoded, row by row. Raises PayloadTooLargeError."""
    height, width = size_hw
    check_pixels((width, height), limits)
    return np.frombuffer(data, dtype=np.uint8).reshape(height, width, 3)


@contextmanager
def _blame_image() -> Iterator[None]:
    """Turn whatever a decoder raises into an error of its image. Only the unusual is worth a line in the log."""
    try:
        yield
    except RequestError:
        raise
    except MemoryError as error:
        raise OutOfResourcesError("there is not enough memory to decode this image") from error
    except Exception as error:
        if not isinstance(error, DECODER_ERRORS):
            reason = escape_lines("".join(traceback.format_exception(error)))
            logger.error("decoding one image failed in an unknown way\n%s", reason)
        raise ImageDecodeError("the image is damaged or incomplete") from error


def _to_upright(image: PIL.Image.Image, orientation: int) -> PIL.Image.Image:
    method = UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


def _read_orientation(image: PIL.Image.Image) -> int:
    """Read the orientation: 1, as stored, unless the EXIF block states another one, as one SHORT, as browsers demand.

    Of a TIFF, Pillow itself takes note.
    """
    block = image.info.get("exif")
    block = block.removeprefix(EXIF_NAME) if isinstance(block, bytes) else b""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None or image.format == "TIFF":
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, start)
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, values, value = struct.unpack_from(order + "HHIH", block, place)
            if (tag, kind, values) == (EXIF_ORIENTATION, SHORT, 1):
                return int(value)
    except struct.error:
        pass
    return 1
