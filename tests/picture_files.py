"""Picture files that Pillow does not write: made by hand, some of them to do harm."""

import struct
import zlib
from collections.abc import Mapping, Sequence

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GRAY, RGB, GRAY_ALPHA, RGBA = 0, 2, 4, 6  # colour types of PNG


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_png(size: tuple[int, int], bits: int, colour: int, pixels: bytes, chunks: bytes = b"") -> bytes:
    """size: (width, height). pixels: as stored, a byte before each row for its filter. chunks: before the pixels."""
    header = struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(pixels))
    return SIGNATURE + chunk(b"IHDR", header) + chunks + data + chunk(b"IEND")


def write_black_png(edge: int) -> bytes:
    """One bit a pixel, as small as it can be."""
    return write_png((edge, edge), 1, GRAY, bytes((1 + (edge + 7) // 8) * edge))


def write_tiff(tags: Mapping[int, int | Sequence[int]], pixels: bytes, order: str = "<") -> bytes:
    """One picture without compression in one strip. tags: numbers, or rows of numbers; their types are SHORT."""
    entries = {**tags, 273: 0, 279: len(pixels)}
    start = 8 + 2 + 12 * len(entries) + 4
    rows, values = b"", b""
    for tag, value in sorted(entries.items()):
        if not isinstance(value, int):
            rows += struct.pack(order + "HHII", tag, 3, len(value), start + len(values))
            values += struct.pack(f"{order}{len(value)}H", *value)
        elif tag in (273, 279):
            rows += struct.pack(order + "HHI4s", tag, 4, 1, b"OFFS" if tag == 273 else struct.pack(order + "I", value))
        else:
            rows += struct.pack(order + "HHIHH", tag, 3, 1, value, 0)
    rows = rows.replace(b"OFFS", struct.pack(order + "I", start + len(values)))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    return head + rows + bytes(4) + values + pixels


def gray_tiff(values: bytes, bits: int, size: tuple[int, int], white_is_zero: bool = False, order: str = "<") -> bytes:
    tags = {256: size[0], 257: size[1], 258: bits, 259: 1, 262: 0 if white_is_zero else 1, 277: 1, 278: size[1]}
    return write_tiff(tags, values, order)


def rgb_tiff(values: bytes, bits: int, size: tuple[int, int], order: str = "<") -> bytes:
    tags = {256: size[0], 257: size[1], 258: (bits, bits, bits), 259: 1, 262: 2, 277: 3, 278: size[1]}
    return write_tiff(tags, values, order)


def forge_size(jpeg: bytes, width: int, height: int) -> bytes:
    """The same JPEG with another size in its header."""
    frame = min(place for place in (jpeg.find(b"\xff\xc0"), jpeg.find(b"\xff\xc2")) if place >= 0)
    return jpeg[: frame + 5] + struct.pack(">HH", height, width) + jpeg[frame + 9 :]


def repeat_last_scan(jpeg: bytes, count: int) -> bytes:
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return jpeg[:-2] + last * count + jpeg[-2:]
