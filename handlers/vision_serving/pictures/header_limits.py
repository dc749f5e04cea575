"""What the header of an image says, held against the limits: nothing is decoded for a picture that is refused."""

import numpy as np
import PIL.Image

from vision_serving.config import ImageLimits
from vision_serving.errors import ImageDecodeError, PayloadTooLargeError
from vision_serving.pictures.kinds import COMPRESSION, check_tiff_kind

# An A4 page at 300 dots per inch, which may be blank: a picture of so few pixels may have any number of them in a byte.
FEW_PIXELS = 10_000_000

# Each scan of a JPEG goes over the whole picture, and ten bytes make one. Encoders write about ten of them.
MAX_JPEG_SCANS = 100
FEW_BYTES_TIMES_PIXELS = 50_000_000_000  # if all the bytes were scans, it would still be done within a second
IMAGE_LENGTH, TILE_WIDTH, TILE_LENGTH = 257, 322, 323  # TIFF tags
FAX = (2, 3, 4)  # compressions that libtiff decodes row by row, each with an end of its own
MAX_FAX_ROWS = 65_535  # as many as a JPEG can have
# Pillow decodes the run lengths of a BMP in Python: this is done within half a second.
MAX_RUN_PIXELS, MAX_RUN_BYTES = 4_000_000, 1_000_000


def check_pixels(size: tuple[int, int], limits: ImageLimits) -> None:
    """Raise PayloadTooLargeError for too many pixels. size: width, height."""
    width, height = size
    pixels = width * height
    if pixels > limits.max_pixels:
        raise PayloadTooLargeError(
            f"the image has {width} x {height} = {pixels:,} pixels; the limit is {limits.max_pixels:,}"
        )


def check_header(opened: PIL.Image.Image, encoded: bytes, limits: ImageLimits) -> None:
    """Raises PayloadTooLargeError or ImageDecodeError."""
    check_pixels(opened.size, limits)
    width, height = opened.size
    pixels = width * height
    if pixels > FEW_PIXELS and pixels > limits.max_pixels_per_byte * len(encoded):
        raise PayloadTooLargeError(
            f"the image claims {width} x {height} = {pixels:,} pixels in {len(encoded):,} bytes; the limit is "
            f"{limits.max_pixels_per_byte:,} pixels a byte"
        )
    check = CHECKS.get(opened.format or "")
    if check is not None:
        check(opened, encoded, limits)


def _check_scans(opened: PIL.Image.Image, encoded: bytes, limits: ImageLimits) -> None:
    if len(encoded) * opened.width * opened.height <= FEW_BYTES_TIMES_PIXELS:
        return
    data = np.frombuffer(encoded, dtype=np.uint8)  # ten times as fast as bytes.count
    markers = np.flatnonzero(data[:-1] == 0xFF)
    scans = np.count_nonzero(data[markers + 1] == 0xDA)
    if scans > MAX_JPEG_SCANS:
        raise ImageDecodeError(f"the JPEG has {scans:,} scans; the limit is {MAX_JPEG_SCANS}")


def _check_tiff(opened: PIL.Image.Image, encoded: bytes, limits: ImageLimits) -> None:
    """Check the rows of a fax, and the tiles: each is decoded whole, however little of it is in the picture."""
    tags = getattr(opened, "tag_v2", {})
    check_tiff_kind(tags)
    if tags.get(COMPRESSION) in FAX and tags[IMAGE_LENGTH] > MAX_FAX_ROWS:
        raise PayloadTooLargeError(f"the TIFF has {tags[IMAGE_LENGTH]:,} rows of fax; the limit is {MAX_FAX_ROWS:,}")
    width, length = tags.get(TILE_WIDTH, 0), tags.get(TILE_LENGTH, 0)
    if not isinstance(width, int) or not isinstance(length, int):
        raise ImageDecodeError("the TIFF does not say how large its tiles are")
    most = min(limits.max_pixels, max(FEW_PIXELS, 2 * opened.width * opened.height))
    if width * length > most:
        raise PayloadTooLargeError(f"the TIFF has tiles of {width} x {length} pixels; the limit is {most:,}")


def _check_runs(opened: PIL.Image.Image, encoded: bytes, limits: ImageLimits) -> None:
    if not any(getattr(tile, "codec_name", "") == "bmp_rle" for tile in getattr(opened, "tile", ())):
        return
    if len(encoded) > MAX_RUN_BYTES or opened.width * opened.height > MAX_RUN_PIXELS:
        raise PayloadTooLargeError(
            f"the BMP has {opened.width} x {opened.height} pixels in run lengths of {len(encoded):,} bytes; the limits "
            f"are {MAX_RUN_PIXELS:,} pixels and {MAX_RUN_BYTES:,} bytes; send it as PNG"
        )


CHECKS = {"BMP": _check_runs, "JPEG": _check_scans, "MPO": _check_scans, "TIFF": _check_tiff}
