"""TIFF: its tags are checked, and the kinds of pictures that libtiff decodes wrongly or not at all are named."""

import ctypes
import io
import struct
from functools import cache
from typing import Any

import PIL._imaging
import PIL.Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from vision_serving.config import ImageLimits
from vision_serving.errors import ConfigError, ImageDecodeError, PayloadTooLargeError, UnsupportedFormatError
from vision_serving.pictures.formats.base import FEW_PIXELS, Format

HANDLER_SETTERS = (
    "TIFFSetErrorHandler", "TIFFSetErrorHandlerExt", "TIFFSetWarningHandler", "TIFFSetWarningHandlerExt",
)  # fmt: skip

# Values of a tag that Pillow makes a tuple of numbers: most are one for each strip of the picture.
MAX_VALUES, MAX_TAGS = 100_000, 65_535
VERSIONS = {  # order of bytes, and whether it is a BigTIFF; Pillow reads two that are none, too
    b"II*\0": ("<", False), b"MM\0*": (">", False), b"II\0*": ("<", False), b"MM*\0": (">", False),
    b"II+\0": ("<", True), b"MM\0+": (">", True),
}  # fmt: skip
TYPES_OF_TEXT = (1, 2, 7)  # BYTE, ASCII, UNDEFINED: one object, however long it is

IMAGE_SIZE, STRIPS_OR_TILES = (256, 257), (273, 324)
BITS, COMPRESSION, PHOTOMETRIC, SAMPLE_FORMAT = 258, 259, 262, 339
COMPRESSIONS = {
    1: "none", 6: "old JPEG", 7: "JPEG", 32766: "NeXT", 32809: "ThunderScan", 32908: "PixarFilm", 32909: "PixarLog",
    34661: "JBIG", 34676: "SGI Log", 34677: "SGI Log", 34712: "JPEG 2000", 34887: "LERC", 34892: "lossy JPEG",
    34925: "LZMA", 34933: "PNG", 50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL",
}  # fmt: skip
COLOURS = {
    0: "gray", 1: "gray", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "CIE L*a*b*", 9: "ICC L*a*b*",
    10: "ITU L*a*b*", 32803: "colour filter array", 32844: "LogL", 32845: "LogLuv", 34892: "linear raw",
}  # fmt: skip
SAMPLES = {2: "signed integers", 3: "floating-point numbers", 5: "complex integers", 6: "complex numbers"}
IMAGE_LENGTH, TILE_WIDTH, TILE_LENGTH = 257, 322, 323
FAX = (2, 3, 4)  # compressions that libtiff decodes row by row, each with an end of its own
MAX_FAX_ROWS = 65_535  # as many as a JPEG can have


@cache
def _find_libtiff() -> ctypes.CDLL:
    return ctypes.CDLL(PIL._imaging.__file__)  # Pillow and what it is linked with: the libtiff that is mapped


def _silence() -> None:
    """Stop libtiff from writing to standard error: a line for each bad row, 36 MB for a fax of 20 KB.

    Of the decoders here, it alone writes anything.
    """
    for name in HANDLER_SETTERS:
        try:
            setter = getattr(_find_libtiff(), name)
        except AttributeError as error:
            raise ConfigError(f"Pillow's libtiff has no {name}; install Pillow from its wheels") from error
        setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
        setter(None)


def _has_codec(compression: int) -> bool:
    """Return whether libtiff was built with this compression."""
    return bool(_find_libtiff().TIFFIsCODECConfigured(ctypes.c_uint16(compression)))


def _check_tags(encoded: bytes) -> None:
    """Check the first picture's tags; a directory that is cut off is left to Pillow."""
    order, is_big = VERSIONS[encoded[:4]]
    offset_type, count_type, head = ("Q", "Q", 8) if is_big else ("I", "H", 4)
    try:
        (start,) = struct.unpack_from(order + offset_type, encoded, head)
        (count,) = struct.unpack_from(order + count_type, encoded, start)
    except (struct.error, OverflowError):
        return
    if count > MAX_TAGS:
        raise ImageDecodeError(f"the file has {count:,} TIFF tags; there can be {MAX_TAGS:,}")
    start += struct.calcsize("=" + count_type)
    entry = struct.Struct(f"{order}HH{offset_type}{offset_type}")
    whole = min(count, (len(encoded) - start) // entry.size)
    for _, kind, values, _ in entry.iter_unpack(encoded[start : start + max(0, whole) * entry.size]):
        if kind not in TYPES_OF_TEXT and values > MAX_VALUES:
            raise ImageDecodeError(f"a TIFF tag has {values:,} values; the limit is {MAX_VALUES:,}")


def _check_opened(opened: PIL.Image.Image, encoded: bytes, limits: ImageLimits) -> None:
    """Check the rows of a fax, and the tiles: each is decoded whole, however little of it is in the picture."""
    tags = getattr(opened, "tag_v2", {})
    _check_kind(tags)
    if tags.get(COMPRESSION) in FAX and tags[IMAGE_LENGTH] > MAX_FAX_ROWS:
        raise PayloadTooLargeError(f"the TIFF has {tags[IMAGE_LENGTH]:,} rows of fax; the limit is {MAX_FAX_ROWS:,}")
    width, length = tags.get(TILE_WIDTH, 0), tags.get(TILE_LENGTH, 0)
    if not isinstance(width, int) or not isinstance(length, int):
        raise ImageDecodeError("the TIFF does not say how large its tiles are")
    most = min(limits.max_pixels, max(FEW_PIXELS, 2 * opened.width * opened.height))
    if width * length > most:
        raise PayloadTooLargeError(f"the TIFF has tiles of {width} x {length} pixels; the limit is {most:,}")


def _check_kind(tags: Any) -> None:
    """Raises UnsupportedFormatError for what Pillow opens, and decodes wrongly or not at all."""
    formats = {value for value in tags.get(SAMPLE_FORMAT, ()) if value in SAMPLES}
    if formats:
        raise UnsupportedFormatError(
            f"a TIFF of {SAMPLES[formats.pop()]}, whose white is not known; send unsigned 8 or 16 bits"
        )
    is_lab = tags.get(PHOTOMETRIC) == 8
    if is_lab or not _has_codec(tags.get(COMPRESSION, 1)):
        raise UnsupportedFormatError(f"this TIFF has {_describe(tags)}, which is not served; send it as PNG")


def _name_kind(encoded: bytes, error: Exception) -> str | None:
    """Return the kind that a directory of a whole picture states."""
    source = io.BytesIO(encoded)
    try:
        tags = ImageFileDirectory_v2(source.read(16 if encoded[2:4] in (b"+\0", b"\0+") else 8))
        source.seek(tags.next)
        tags.load(source)
        if not all(tag in tags for tag in IMAGE_SIZE) or not any(tag in tags for tag in STRIPS_OR_TILES):
            return None
        _check_kind(tags)
        return _describe(tags)
    except (SyntaxError, ValueError, TypeError, LookupError, OSError, OverflowError, struct.error):
        return None


def _describe(tags: Any) -> str:
    colours, compression = tags.get(PHOTOMETRIC, 0), tags.get(COMPRESSION, 1)
    bits = " + ".join(str(count) for count in tags.get(BITS, (1,))[:8])
    return (
        f"colours of kind {str(colours)[:20]} ({COLOURS.get(colours, 'unknown')}) in {bits} bits, "
        f"compression {compression} ({COMPRESSIONS.get(compression, 'of another name')})"
    )


FORMAT = Format(
    suffixes=(".tif", ".tiff"),
    signatures=tuple((0, version) for version in VERSIONS),
    prepare=_silence,
    check_bytes=_check_tags,
    check_opened=_check_opened,
    name_kind=_name_kind,
)
