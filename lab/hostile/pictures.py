"""Damaged, odd and foreign pictures, each made by code; what is random in them comes from a seed."""

import random
import struct
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import PIL.Image

from lab.hostile.picture_files import encode_as, insert_into_jpeg, jpeg_segment, noise_picture, write_tiff
from vision_serving.config import ImageLimits

Make = Callable[[random.Random], bytes]

ORIENTATION = 0x0112
ORIENTATIONS = range(1, 9)
SAVED: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 80}, "WEBP": {"quality": 80}, "TIFF": {"compression": "tiff_lzw"}, "AVIF": {"speed": 10},
}  # fmt: skip
FORMATS: dict[str, dict[str, Any]] = {kind: SAVED.get(kind, {}) for kind in ImageLimits().formats}


def photograph(size: tuple[int, int] = (64, 48)) -> PIL.Image.Image:
    """Draw soft colours, so that a file of it has structure in all of its parts. size: (width, height)."""
    return noise_picture(7, (8, 6)).resize(size, PIL.Image.Resampling.BICUBIC)


@cache
def whole(kind: str) -> bytes:
    return encode_as(photograph(), kind, exif=exif(6), **FORMATS[kind])


def exif(orientation: int) -> bytes:
    block = PIL.Image.Exif()
    block[ORIENTATION] = orientation
    return block.tobytes()


def cut(kind: str, choose: random.Random) -> bytes:
    return whole(kind)[: choose.randrange(1, len(whole(kind)))]


def flip_bits(kind: str, choose: random.Random) -> bytes:
    """Return one to six bits, most of them in the first bytes, where the structure of a file is."""
    broken = bytearray(whole(kind))
    for _ in range(choose.randint(1, 6)):
        place = choose.randrange(min(len(broken), 120) if choose.random() < 0.7 else len(broken))
        broken[place] ^= 1 << choose.randrange(8)
    return bytes(broken)


# They may decode or not: the core says in process what is right.
DAMAGED: dict[str, Make] = {
    **{f"{kind} that is cut off": partial(cut, kind) for kind in FORMATS},
    **{f"{kind} with flipped bits": partial(flip_bits, kind) for kind in FORMATS},
}


def exif_that_loops() -> bytes:
    """Return a GIF in which the pointers to the sub-blocks, and to the next block, lead to the first."""
    entries = [(0x0112, 3, 6), (0x8769, 4, 8), (0x8825, 4, 8), (0xA005, 4, 8)]
    rows = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + rows + struct.pack("<I", 8)


def palette_with_transparency() -> bytes:
    picture = photograph().quantize(16)
    return encode_as(picture, transparency=bytes(range(0, 256, 16)))


def deep_png() -> bytes:
    levels = np.asarray(photograph().convert("L")).astype(np.uint16) * 257
    return encode_as(PIL.Image.fromarray(levels))


def script_in_a_jpeg() -> bytes:
    return insert_into_jpeg(whole("JPEG"), jpeg_segment(0xFE, b"<script>alert(1)</script><?php system('id') ?>"))


def several(kind: str, **options: Any) -> bytes:
    return encode_as(photograph(), kind, save_all=True, append_images=[noise_picture(1, (64, 48))], **options)


def converted(mode: str, kind: str = "PNG", **options: Any) -> bytes:
    return encode_as(photograph().convert(mode), kind, **options)


def turned(orientation: int) -> bytes:
    return encode_as(photograph(), "JPEG", exif=exif(orientation))


# Pictures that are served, however odd they are.
ODD: dict[str, Callable[[], bytes]] = {
    **{f"EXIF orientation {number}": partial(turned, number) for number in ORIENTATIONS},
    "EXIF block of garbage": lambda: encode_as(photograph(), "JPEG", exif=b"Exif\0\0garbage"),
    "EXIF block beyond its end": lambda: encode_as(photograph(), "JPEG", exif=b"Exif\0\0II*\0" + b"\xff" * 4),
    "EXIF block that leads to itself": lambda: encode_as(photograph(), "JPEG", exif=exif_that_loops()),
    "CMYK JPEG": partial(converted, "CMYK", "JPEG"),
    "CMYK TIFF": partial(converted, "CMYK", "TIFF"),
    "gray JPEG": partial(converted, "L", "JPEG"),
    "progressive JPEG": lambda: encode_as(photograph(), "JPEG", progressive=True),
    "JPEG with a second picture behind it": partial(several, "MPO"),
    "JPEG with a script in its comment": script_in_a_jpeg,
    "JPEG with a ZIP behind it": lambda: whole("JPEG") + b"PK\3\4" + bytes(100),
    "PNG of 16 bits": deep_png,
    "PNG of 1 bit": partial(converted, "1"),
    "PNG with a transparent palette": palette_with_transparency,
    "PNG, gray with alpha": partial(converted, "LA"),
    "PNG with alpha": partial(converted, "RGBA"),
    "PNG of 1 x 1": lambda: encode_as(noise_picture(0, (1, 1))),
    "PNG of 1 x 16384": lambda: encode_as(noise_picture(0, (1, 16384))),
    "PNG of 16384 x 1": lambda: encode_as(noise_picture(0, (16384, 1))),
    "GIF with two frames": partial(several, "GIF"),
    "GIF with a PDF behind it": lambda: whole("GIF") + b"%PDF-1.7",
    "WebP with alpha": partial(converted, "RGBA", "WEBP", lossless=True),
    "TIFF of two pages": partial(several, "TIFF"),
    "BMP of 1 bit": partial(converted, "1", "BMP"),
}


def float_tiff() -> bytes:
    return encode_as(PIL.Image.fromarray(np.zeros((4, 4), dtype=np.float32)), "TIFF")


BOX = b"\0\0\0\x1cftyp"
# Bodies that are no picture, or of a kind that is not served: status, type of the error.
FOREIGN: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 400),
    "one byte": (b"\0", 400),
    "HTML": (b"<html><body>hello</body></html>", 400),
    "noise": (random.Random(1).randbytes(4096), 400),
    "zeros": (bytes(4096), 400),
    "PNG signature alone": (b"\x89PNG\r\n\x1a\n", 400),
    "JPEG signature alone": (b"\xff\xd8\xff", 400),
    "GIF signature alone": (b"GIF89a", 400),
    "TIFF signature alone": (b"II*\0", 400),
    "BMP signature alone": (b"BM", 400),
    "WebP signature alone": (b"RIFF\4\0\0\0WEBP", 400),
    "TIFF of unknown pixels": (write_tiff({256: 4, 257: 4, 258: 7, 259: 1, 262: 1, 277: 1, 278: 4}, bytes(64)), 415),
    "TIFF of floating point": (float_tiff(), 415),
    "PDF": (b"%PDF-1.7\n" + bytes(100), 415),
    "PDF with a PNG in it": (b"%PDF-1.7\n" + whole("PNG"), 415),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) run", 415),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', 415),
    "XML with an entity": (b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:/etc/passwd">]>', 415),
    "ZIP": (b"PK\3\4" + bytes(100), 415),
    "Photoshop": (b"8BPS\0\1" + bytes(100), 415),
    "ICO": (encode_as(noise_picture(0, (16, 16)), "ICO"), 415),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n", 415),
    "JPEG XL": (b"\xff\x0a" + bytes(100), 415),
    "HEIC": (BOX + b"heic" + bytes(20), 415),
    "MP4": (BOX + b"isom" + bytes(20), 415),
}
TYPES = {400: "ImageDecodeError", 413: "PayloadTooLargeError", 415: "UnsupportedFormatError"}
