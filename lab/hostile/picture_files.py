"""Picture files, also such as Pillow does not write: made by hand, some of them to do harm."""

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GRAY, RGB, GRAY_ALPHA, RGBA = 0, 2, 4, 6  # colour types of PNG


def noise_picture(seed: int, size: tuple[int, int]) -> PIL.Image.Image:
    """Draw noise. size: (width, height)."""
    return PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def encode_as(picture: PIL.Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_png(size: tuple[int, int], bits: int, colour: int, pixels: bytes, chunks: bytes = b"") -> bytes:
    """Write a PNG of (width, height). pixels: as stored, a filter's byte before each row. chunks: before the pixels."""
    header = struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(pixels))
    return SIGNATURE + chunk(b"IHDR", header) + chunks + data + chunk(b"IEND")


def write_black_png(edge: int) -> bytes:
    """Return one bit a pixel, as small as it can be."""
    return write_png((edge, edge), 1, GRAY, bytes((1 + (edge + 7) // 8) * edge))


def write_png_header(width: int, height: int) -> bytes:
    """Return a PNG that says its size and holds next to nothing."""
    return write_png((width, height), 8, RGB, b"\0")


def write_gif(size: tuple[int, int], frame: tuple[int, int] = (1, 1), count: int = 1) -> bytes:
    """Write frames of which each is one pixel, whatever its size is said to be."""
    head = b"GIF89a" + struct.pack("<HHBBB", *size, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    one = b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02\x44\x01\0"
    return head + one * count + b";"


def write_flat_webp(edge: int) -> bytes:
    """Write one colour without loss, in 34 bytes: 0 bits a pixel."""
    size = (edge - 1) | (edge - 1) << 14
    data = b"\x2f" + struct.pack("<I", size) + b"\x07\x10\x11\xfd\x0fDD\xff\x03"
    return b"RIFF" + struct.pack("<I", 12 + len(data)) + b"WEBPVP8L" + struct.pack("<I", len(data)) + data


def write_tiled_tiff(size: tuple[int, int], tile: tuple[int, int]) -> bytes:
    """Return a corner of one black tile, deflated."""
    tags = {256: size[0], 257: size[1], 258: 8, 259: 8, 262: 1, 277: 1, 322: tile[0], 323: tile[1]}
    return write_tiff(tags, zlib.compress(bytes(tile[0] * tile[1])), piece=TILE)


STRIP, TILE = (273, 279), (324, 325)  # tags: where the pixels begin, and their length


def write_tiff(
    tags: Mapping[int, int | Sequence[int]], pixels: bytes, order: str = "<", piece: tuple[int, int] = STRIP
) -> bytes:
    """Return one picture in one piece. tags: each one or several SHORTs, or LONGs where one needs it."""
    start = 8 + 2 + 12 * (len(tags) + 2) + 4
    lists = {tag: (value,) if isinstance(value, int) else value for tag, value in tags.items()}
    letters = {tag: "I" if max(values) > 0xFFFF else "H" for tag, values in lists.items()}
    packed = {tag: struct.pack(f"{order}{len(values)}{letters[tag]}", *values) for tag, values in lists.items()}
    outside = b"".join(value for value in packed.values() if len(value) > 4)
    rows, place = {}, start
    for tag, content in packed.items():
        rows[tag] = struct.pack(order + "HHI", tag, {"H": 3, "I": 4}[letters[tag]], len(lists[tag]))
        rows[tag] += content.ljust(4, b"\0") if len(content) <= 4 else struct.pack(order + "I", place)
        place += len(content) if len(content) > 4 else 0
    for tag, value in zip(piece, (place, len(pixels)), strict=True):
        rows[tag] = struct.pack(order + "HHII", tag, 4, 1, value)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(rows))
    return head + b"".join(rows[tag] for tag in sorted(rows)) + bytes(4) + outside + pixels


def gray_tiff(values: bytes, bits: int, size: tuple[int, int], white_is_zero: bool = False, order: str = "<") -> bytes:
    tags = {256: size[0], 257: size[1], 258: bits, 259: 1, 262: 0 if white_is_zero else 1, 277: 1, 278: size[1]}
    return write_tiff(tags, values, order)


def rgb_tiff(values: bytes, bits: int, size: tuple[int, int], order: str = "<") -> bytes:
    tags: dict[int, int | Sequence[int]] = {
        256: size[0],
        257: size[1],
        258: (bits, bits, bits),
        259: 1,
        262: 2,
        277: 3,
        278: size[1],
    }
    return write_tiff(tags, values, order)


def forge_size(jpeg: bytes, width: int, height: int) -> bytes:
    """Return the same JPEG with another size in its header."""
    frame = min(place for place in (jpeg.find(b"\xff\xc0"), jpeg.find(b"\xff\xc2")) if place >= 0)
    return jpeg[: frame + 5] + struct.pack(">HH", height, width) + jpeg[frame + 9 :]


def repeat_last_scan(jpeg: bytes, count: int) -> bytes:
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return jpeg[:-2] + last * count + jpeg[-2:]


def insert_into_jpeg(jpeg: bytes, data: bytes) -> bytes:
    """Insert behind the marker that a JPEG begins with."""
    return jpeg[:2] + data + jpeg[2:]


def jpeg_segment(marker: int, data: bytes = b"") -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


def insert_into_gif(gif: bytes, data: bytes) -> bytes:
    """Insert before its first frame."""
    head = 13 + (3 << (gif[10] & 7) + 1 if gif[10] & 0x80 else 0)
    return gif[:head] + data + gif[gif.index(b",", head) :]


def write_run_length_bmp(size: tuple[int, int], runs: bytes) -> bytes:
    """Write a BMP of `size` (width, height). runs: as stored, of 8 bits a pixel."""
    palette = b"".join(bytes((level, 0, level, 0)) for level in range(256))
    start = 14 + 40 + len(palette)
    head = struct.pack("<IiiHHIIiiII", 40, *size, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + head + palette + runs


def write_tiff_tag(tag: int, kind: int, count: int) -> bytes:
    """Return a gray TIFF of 1 x 1 with one tag of `count` values. kind: 3 SHORT, 4 LONG."""
    tags = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 277: 1, 278: 1, 273: 8, 279: 1}
    start = 8 + 2 + 12 * len(tags | {tag: 0}) + 4
    rows = {number: struct.pack("<HHII", number, 3, 1, value) for number, value in tags.items()}
    rows[tag] = struct.pack("<HHII", tag, kind, count, start)
    head = b"II*\0" + struct.pack("<IH", 8, len(rows))
    return (
        head
        + b"".join(rows[number] for number in sorted(rows))
        + bytes(4)
        + struct.pack({3: "<H", 4: "<I"}[kind], 8) * count
    )
