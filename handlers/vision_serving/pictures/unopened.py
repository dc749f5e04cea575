"""Files that do not open: which format it is, which kind of it, and so which error."""

from itertools import chain

from vision_serving.config import ImageLimits
from vision_serving.errors import ImageDecodeError, RequestError, UnsupportedFormatError
from vision_serving.pictures.formats import FORMATS

# (offset, signature, name) of other files that people send.
FOREIGN = (
    (0, b"8BPS", "Photoshop"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    *((0, b"\x00\x00\x02\x00" + bytes((count, 0)), "CUR") for count in range(1, 256)),  # of 0, it is a TGA
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "XML or SVG"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (0, b"PK\x03\x04", "ZIP"),
    (4, b"ftypjp2 ", "JPEG 2000"),
    (4, b"ftypjxl ", "JPEG XL"),
    (4, b"ftypcrx ", "Canon CR3"),
    (4, b"ftyp", "MP4"),
)


def explain_unopened(encoded: bytes, limits: ImageLimits, error: Exception) -> RequestError:
    """Return the error of a file that could not be opened. error: what Pillow raised."""
    allowed = ", ".join(limits.formats)
    name = name_format(encoded)
    if name is None:
        return ImageDecodeError(f"not an image this server can read; send one of {allowed}")
    if name not in limits.formats:
        return UnsupportedFormatError(f"this looks like {name}, which is not served; send one of {allowed}")
    name_kind = FORMATS[name].name_kind
    kind = None if name_kind is None else name_kind(encoded, error)
    if kind is None:
        return ImageDecodeError(f"this looks like {name}, but it is damaged or incomplete")
    return UnsupportedFormatError(f"this {name} has {kind}, which is not served; send it as PNG")


def name_format(encoded: bytes) -> str | None:
    served = (name for name, known in FORMATS.items() if known.fits(encoded))
    foreign = (name for offset, signature, name in FOREIGN if encoded.startswith(signature, offset))
    return next(chain(served, foreign), None)
