"""BMP: run lengths cost time, and Pillow says which kinds it does not read."""

import re

import PIL.Image

from vision_serving.config import ImageLimits
from vision_serving.errors import PayloadTooLargeError
from vision_serving.pictures.formats.base import Format

# Pillow decodes the run lengths of a BMP in Python: this is done within half a second.
MAX_RUN_PIXELS, MAX_RUN_BYTES = 4_000_000, 1_000_000
BMP_PARTS = {
    r"compression \(4\)": "compression 4 (JPEG)", r"compression \(5\)": "compression 5 (PNG)",
    r"compression \((\d+)\)": r"compression \1", r"pixel depth \((\d+)\)": r"\1 bits a pixel",
    r"bitfields layout": "bit fields of an unusual layout",
    r"header type \((1[6-9]|[2-5]\d|6[0-3])\)": r"a header of \1 bytes",
}  # fmt: skip


def _check_runs(opened: PIL.Image.Image, encoded: bytes, limits: ImageLimits) -> None:
    if not any(getattr(tile, "codec_name", "") == "bmp_rle" for tile in getattr(opened, "tile", ())):
        return
    if len(encoded) > MAX_RUN_BYTES or opened.width * opened.height > MAX_RUN_PIXELS:
        raise PayloadTooLargeError(
            f"the BMP has {opened.width} x {opened.height} pixels in run lengths of {len(encoded):,} bytes; the limits "
            f"are {MAX_RUN_PIXELS:,} pixels and {MAX_RUN_BYTES:,} bytes; send it as PNG"
        )


def _name_kind(encoded: bytes, error: Exception) -> str | None:
    """Return what Pillow says that it does not support."""
    for pattern, part in BMP_PARTS.items():
        found = re.fullmatch("Unsupported BMP " + pattern, str(error))
        if found:
            return found.expand(part)
    return None


FORMAT = Format(suffixes=(".bmp",), signatures=((0, b"BM"),), check_opened=_check_runs, name_kind=_name_kind)
