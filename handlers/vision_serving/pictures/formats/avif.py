"""AVIF: decoded on one thread, with an EXIF block of some size; items that libavif does not decode are named."""

import re

import PIL.AvifImagePlugin
from PIL import _avif

from vision_serving.errors import ImageDecodeError
from vision_serving.pictures.formats.base import Format

ITEM = re.compile(rb"infe\x02.{7}([ -~]{4})", re.DOTALL)  # the kind of each
HEAD_BYTES, MAX_KINDS = 65_536, 5  # where they are looked for, and how many are named
MAX_EXIF_BYTES = 1 << 20  # when Pillow opens a file, it makes a Python number of every two bytes


def _check_exif(encoded: bytes) -> None:
    if len(encoded) <= MAX_EXIF_BYTES:
        return
    try:
        length = len(_avif.AvifDecoder(encoded, "auto", 1).get_info()[4] or b"")
    except (RuntimeError, SyntaxError, ValueError):
        return  # Pillow will say the same
    if length > MAX_EXIF_BYTES:
        raise ImageDecodeError(f"the EXIF block has {length:,} bytes; the limit is {MAX_EXIF_BYTES:,}")


def _prepare() -> None:
    PIL.AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # images are decoded in as many threads as there are to be


def _name_kind(encoded: bytes, error: Exception) -> str | None:
    """Return the kinds of items in a file that libavif can parse, and not decode."""
    if not isinstance(error, RuntimeError):
        return None
    kinds = sorted({kind.decode() for kind in ITEM.findall(encoded[:HEAD_BYTES])})[:MAX_KINDS]
    return f"items of the kinds {', '.join(kinds) or 'unknown'} ({str(error).rpartition(': ')[2].lower()})"


FORMAT = Format(
    suffixes=(".avif",),
    brands=frozenset((b"avif", b"avis")),
    prepare=_prepare,
    check_bytes=_check_exif,
    name_kind=_name_kind,
)
