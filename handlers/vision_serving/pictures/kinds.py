"""Pictures that Pillow does not open: which format it is, which kind of it, and so which error."""

import io
import re
import struct
from collections.abc import Callable
from typing import Any

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from vision_serving.config import ImageLimits
from vision_serving.errors import ImageDecodeError, RequestError, UnsupportedFormatError
from vision_serving.pictures.decoders import has_tiff_codec
from vision_serving.pictures.structure_limits import TIFF_VERSIONS

# (offset, signature, name) of files that people send: the first that fits counts.
KNOWN_SIGNATURES = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG", "PNG"),
    (8, b"WEBP", "WEBP"),
    (0, b"BM", "BMP"),
    *((0, version, "TIFF") for version in TIFF_VERSIONS),
    (0, b"GIF8", "GIF"),
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
)
AVIF_BRANDS = {b"avif", b"avis"}
HEIF_BRANDS = {
    b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"mif3", b"msf1", b"jpeg",
    b"jpgs", b"avci", b"avcs", b"vvic", b"vvis", b"evbi", b"evbs", b"evmi", b"evms", b"j2ki", b"j2is", b"unif", b"1pic",
}  # fmt: skip

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
BMP_PARTS = {
    r"compression \(4\)": "compression 4 (JPEG)", r"compression \(5\)": "compression 5 (PNG)",
    r"compression \((\d+)\)": r"compression \1", r"pixel depth \((\d+)\)": r"\1 bits a pixel",
    r"bitfields layout": "bit fields of an unusual layout",
    r"header type \((1[6-9]|[2-5]\d|6[0-3])\)": r"a header of \1 bytes",
}  # fmt: skip
ITEM = re.compile(rb"infe\x02.{7}(.{4})", re.DOTALL)  # of an AVIF: the kind of each


def explain_unopened(encoded: bytes, limits: ImageLimits, error: Exception) -> RequestError:
    """Return the error of a file that could not be opened. error: what Pillow raised."""
    allowed = ", ".join(limits.formats)
    name = name_format(encoded)
    if name is None:
        return ImageDecodeError(f"not an image this server can read; send one of {allowed}")
    if name not in limits.formats:
        return UnsupportedFormatError(f"this looks like {name}, which is not served; send one of {allowed}")
    kind = KINDS[name](encoded, error) if name in KINDS else None
    if kind is None:
        return ImageDecodeError(f"this looks like {name}, but it is damaged or incomplete")
    return UnsupportedFormatError(f"this {name} has {kind}, which is not served; send it as PNG")


def name_format(encoded: bytes) -> str | None:
    if encoded[4:8] == b"ftyp":
        end = int.from_bytes(encoded[:4], "big")
        brands = {encoded[8:12], *(encoded[place : place + 4] for place in range(16, min(end, 256), 4))}
        return "AVIF" if brands & AVIF_BRANDS else "HEIF" if brands & HEIF_BRANDS else "MP4"
    return next((name for offset, signature, name in KNOWN_SIGNATURES if encoded.startswith(signature, offset)), None)


def check_tiff_kind(tags: Any) -> None:
    """Raises UnsupportedFormatError for what Pillow opens, and decodes wrongly or not at all."""
    formats = {value for value in tags.get(SAMPLE_FORMAT, ()) if value in SAMPLES}
    if formats:
        raise UnsupportedFormatError(
            f"a TIFF of {SAMPLES[formats.pop()]}, whose white is not known; send unsigned 8 or 16 bits"
        )
    is_lab = tags.get(PHOTOMETRIC) == 8
    if is_lab or not has_tiff_codec(tags.get(COMPRESSION, 1)):
        raise UnsupportedFormatError(f"this TIFF has {_describe_tiff(tags)}, which is not served; send it as PNG")


def _name_tiff(encoded: bytes, error: Exception) -> str | None:
    """Return the kind that a directory of a whole picture states."""
    source = io.BytesIO(encoded)
    try:
        tags = ImageFileDirectory_v2(source.read(16 if encoded[2:4] in (b"+\0", b"\0+") else 8))
        source.seek(tags.next)
        tags.load(source)
        if not all(tag in tags for tag in IMAGE_SIZE) or not any(tag in tags for tag in STRIPS_OR_TILES):
            return None
        check_tiff_kind(tags)
        return _describe_tiff(tags)
    except (SyntaxError, ValueError, TypeError, LookupError, OSError, OverflowError, struct.error):
        return None


def _describe_tiff(tags: Any) -> str:
    colours, compression = tags.get(PHOTOMETRIC, 0), tags.get(COMPRESSION, 1)
    bits = " + ".join(str(count) for count in tags.get(BITS, (1,))[:8])
    return (
        f"colours of kind {colours} ({COLOURS.get(colours, 'unknown')}) in {bits} bits, "
        f"compression {compression} ({COMPRESSIONS.get(compression, 'of another name')})"
    )


def _name_bmp(encoded: bytes, error: Exception) -> str | None:
    """Return what Pillow says that it does not support."""
    for pattern, part in BMP_PARTS.items():
        found = re.fullmatch("Unsupported BMP " + pattern, str(error))
        if found:
            return found.expand(part)
    return None


def _name_avif(encoded: bytes, error: Exception) -> str | None:
    """Return the kinds of items in a file that libavif can parse, and not decode."""
    if not isinstance(error, RuntimeError):
        return None
    kinds = sorted({kind.decode("latin-1") for kind in ITEM.findall(encoded)})
    return f"items of the kinds {', '.join(kinds)} ({str(error).rpartition(': ')[2].lower()})"


KINDS: dict[str, Callable[[bytes, Exception], str | None]] = {"TIFF": _name_tiff, "BMP": _name_bmp, "AVIF": _name_avif}
