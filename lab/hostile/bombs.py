"""Files that would cost far more than they weigh: refused at once, or served at the price of what is seen of them."""

import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import PIL.Image

from lab.hostile.picture_files import (
    RGB,
    TILE,
    chunk,
    encode_as,
    forge_size,
    gray_tiff,
    insert_into_gif,
    insert_into_jpeg,
    jpeg_segment,
    noise_picture,
    repeat_last_scan,
    write_black_png,
    write_flat_webp,
    write_gif,
    write_png,
    write_png_header,
    write_run_length_bmp,
    write_tiff,
    write_tiff_tag,
    write_tiled_tiff,
)

MEBI = 1 << 20
MAX_CPU_S, MAX_RISE_MIB = 1.0, 150  # what each of them may cost

SMALL_JPEG = encode_as(noise_picture(0, (8, 8)), "JPEG")
SMALL_GIF = encode_as(PIL.Image.new("P", (8, 8)), "GIF")
PROGRESSIVE = encode_as(noise_picture(0, (64, 64)), "JPEG", progressive=True)
TINY_PROGRESSIVE = encode_as(noise_picture(0, (16, 16)), "JPEG", progressive=True)
WIDE_SCAN = b"\xff" + b"\1\0" * 255 + b"\0\xff\0"
MOST = 24_000_000  # bytes of a picture that a server takes
ROW_OF_RUNS = b"\xff\1" * 3 + b"\xeb\1\0\0"  # of 1000 pixels
ONE_GRAY_SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\x00"


@dataclass(frozen=True)
class Bomb:
    """make: only when it is needed. status: 200 where only what is seen of it is paid for."""

    status: int
    make: Callable[[], bytes]


def png_with(chunks: bytes) -> bytes:
    return write_png((1, 1), 8, RGB, b"\0\1\2\3", chunks)


def compressed(kind: bytes, size: int) -> bytes:
    between = b"\1\0\0\0" if kind == b"iTXt" else b"\0"
    return chunk(kind, b"name\0" + between + zlib.compress(bytes(size), 9))


def frames(kind: str, count: int, **options: Any) -> bytes:
    shades = [
        PIL.Image.new("RGB", (16, 16), (number % 2 * 255, number % 256, number // 256)) for number in range(count)
    ]
    return encode_as(shades[0], kind, save_all=True, append_images=shades[1:], **options)


def webp_with_a_large_canvas() -> bytes:
    encoded = frames("WEBP", 2, lossless=True)
    size = encoded.index(b"VP8X") + 12
    return encoded[:size] + b"\xff\x3f\0\x10\x27\0" + encoded[size + 6 :]  # 16384 x 10001


def bmp_of_no_pixels() -> bytes:
    encoded = bytearray(encode_as(noise_picture(0, (1, 1)), "BMP"))
    encoded[18:26] = (7000).to_bytes(4, "little") * 2
    return bytes(encoded)


def tiff_of_a_deep_tile() -> bytes:
    """Return a tile of 8 bytes a pixel, nearly all of them beside the picture."""
    tags: dict[int, int | tuple[int, ...]] = {
        256: 1,
        257: 1,
        258: (16,) * 4,
        259: 8,
        262: 2,
        277: 4,
        338: 2,
        322: 7056,
        323: 7056,
    }
    return write_tiff(tags, zlib.compress(bytes(7056 * 7056 * 8)), piece=TILE)


def tiff_that_inflates() -> bytes:
    """Return a strip of 64 MB for a picture of 64 pixels."""
    tags = {256: 8, 257: 8, 258: 8, 259: 8, 262: 1, 277: 1, 278: 8}
    return write_tiff(tags, zlib.compress(bytes(64 * MEBI)))


def fax_of_noise(rows: int) -> bytes:
    """Return rows of 16 pixels with an error in nearly each, which libtiff would report one by one."""
    tags = {256: 16, 257: rows, 258: 1, 259: 3, 262: 0, 277: 1, 278: rows}
    return write_tiff(tags, random.Random(1).randbytes(20_000))


def tiff_whose_next_picture_is_itself() -> bytes:
    encoded = gray_tiff(bytes(64), 8, (8, 8))
    end = 10 + 12 * int.from_bytes(encoded[8:10], "little")
    return encoded[:end] + (8).to_bytes(4, "little") + encoded[end + 4 :]


def many_exif_segments() -> bytes:
    return insert_into_jpeg(SMALL_JPEG, jpeg_segment(0xE1, b"Exif\0\0" + bytes(5000)) * 800)


def write_exif_of_resolution(count: int) -> bytes:
    """Return a JPEG whose EXIF block, in segments, states a resolution of `count` fractions."""
    tags = struct.pack("<HHII", 296, 3, 1, 2) + struct.pack("<HHII", 282, 5, count, 38)
    block = b"II*\0" + struct.pack("<IH", 8, 2) + tags + bytes(4) + struct.pack("<II", 72, 1) * count
    pieces = (block[start : start + 65_000] for start in range(0, len(block), 65_000))
    return insert_into_jpeg(SMALL_JPEG, b"".join(jpeg_segment(0xE1, b"Exif\0\0" + piece) for piece in pieces))


def png_whose_pixels_end_too_early() -> bytes:
    encoded = write_png((1000, 1000), 8, RGB, b"\0\1\2\3")
    start = encoded.index(b"IDAT")
    pixels = encoded[start + 4 : encoded.index(b"IEND") - 8]
    return encoded[: start - 4] + chunk(b"IDAT", pixels + bytes(MOST)) + chunk(b"IEND")


def avif_of_orientations(count: int = 11_000_000) -> bytes:
    """Return an EXIF block whose orientation has so many values; Pillow writes that of a tag that it leaves alone."""
    left_alone, orientation = (struct.pack("<HHI", tag, 3, count) for tag in (275, 274))
    block = write_tiff_tag(275, 3, count)
    return encode_as(noise_picture(0, (64, 64)), "AVIF", exif=block).replace(left_alone, orientation)


def avif_of_many_kinds() -> bytes:
    """Return items of a kind that libavif does not decode, and behind them bytes that look like a million others."""
    encoded = encode_as(noise_picture(0, (64, 64)), "AVIF").replace(b"av01", b"hvc1")
    items = b"".join(b"infe\2" + bytes(7) + number.to_bytes(4, "big") for number in range(MOST // 16))
    return encoded + struct.pack(">I4s", len(items) + 8, b"mdat") + items


BOMBS: dict[str, Bomb] = {
    "png of 1 bit, 13376 x 13376": Bomb(413, lambda: write_black_png(13376)),
    "png of 1 bit, 7000 x 7000": Bomb(413, lambda: write_black_png(7000)),
    "png of 65535 x 65535": Bomb(413, lambda: write_png_header(65535, 65535)),
    "png as large as one can say": Bomb(413, lambda: write_png_header(2**31 - 1, 2**31 - 1)),
    "png, text of 64 MB": Bomb(200, lambda: png_with(compressed(b"zTXt", 64 * MEBI))),
    "png, text of 1 MB a hundred times": Bomb(200, lambda: png_with(compressed(b"zTXt", MEBI) * 100)),
    "png, international text of 64 MB": Bomb(200, lambda: png_with(compressed(b"iTXt", 64 * MEBI))),
    "png, profile of 64 MB": Bomb(200, lambda: png_with(compressed(b"iCCP", 64 * MEBI))),
    "png, profile of 1 MB five thousand times": Bomb(200, lambda: png_with(compressed(b"iCCP", MEBI) * 5000)),
    "png whose pixels end before 24 MB of others": Bomb(400, png_whose_pixels_end_too_early),
    "png of 300,000 empty chunks": Bomb(400, lambda: png_with(chunk(b"abCd") * 300_000)),
    "jpeg, 9400 x 9400 in its header": Bomb(413, lambda: forge_size(SMALL_JPEG, 9400, 9400)),
    "jpeg, 7000 x 7000 in its header": Bomb(413, lambda: forge_size(SMALL_JPEG, 7000, 7000)),
    "jpeg, 65535 x 65535 in its header": Bomb(413, lambda: forge_size(SMALL_JPEG, 65535, 65535)),
    "jpeg, progressive, 3000 scans": Bomb(400, lambda: repeat_last_scan(forge_size(PROGRESSIVE, 3000, 3000), 3000)),
    "jpeg, sequential, 3000 scans": Bomb(
        400, lambda: forge_size(SMALL_JPEG, 3000, 3000)[:-2] + ONE_GRAY_SCAN * 3000 + b"\xff\xd9"
    ),
    "jpeg of 4 MB of fill bytes": Bomb(400, lambda: insert_into_jpeg(SMALL_JPEG, b"\xff" * 4 * MEBI)),
    "jpeg of a million empty comments": Bomb(400, lambda: insert_into_jpeg(SMALL_JPEG, jpeg_segment(0xFE) * 1_000_000)),
    "jpeg without its end, six million empty comments instead": Bomb(
        200, lambda: TINY_PROGRESSIVE[:-2] + jpeg_segment(0xFE) * (MOST // 4)
    ),
    "jpeg without its end, with forty thousand scans of 255 components": Bomb(
        400, lambda: TINY_PROGRESSIVE[:-2] + jpeg_segment(0xDA, WIDE_SCAN) * (MOST // 600)
    ),
    "jpeg whose resolution is 800,000 fractions": Bomb(400, lambda: write_exif_of_resolution(780_000)),
    "jpeg whose resolution is 200,000 fractions": Bomb(200, lambda: write_exif_of_resolution(200_000)),
    "jpeg, EXIF block in 800 segments": Bomb(400, many_exif_segments),
    "gif of 65535 x 65535": Bomb(413, lambda: write_gif((65535, 65535))),
    "gif whose frame is 65535 x 65535": Bomb(413, lambda: write_gif((1, 1), frame=(65535, 65535))),
    "gif of two million comments of a byte": Bomb(
        400, lambda: insert_into_gif(SMALL_GIF, b"!\xfe" + b"\1a" * 2_000_000 + b"\0")
    ),
    "webp of 16383 x 16383": Bomb(413, lambda: write_flat_webp(16383)),
    "webp of 7000 x 7000": Bomb(413, lambda: write_flat_webp(7000)),
    "webp, animated, 16384 x 10001": Bomb(413, webp_with_a_large_canvas),
    "avif of 3300 x 3300": Bomb(413, lambda: encode_as(PIL.Image.new("L", (3300, 3300)), "AVIF", speed=10)),
    "avif of a million kinds of items": Bomb(415, avif_of_many_kinds),
    "avif, orientation of eleven million values": Bomb(400, avif_of_orientations),
    "tiff of 65535 x 65535": Bomb(413, lambda: gray_tiff(b"", 8, (65535, 65535))),
    "tiff of 1 x 1 from a tile of 12000 x 12000": Bomb(413, lambda: write_tiled_tiff((1, 1), (12000, 12000))),
    "tiff of 1 x 1 from a tile of 400 MB": Bomb(413, tiff_of_a_deep_tile),
    "tiff of a million strips": Bomb(400, lambda: write_tiff_tag(273, 4, 1_000_000)),
    "tiff whose orientation has two million values": Bomb(400, lambda: write_tiff_tag(274, 3, 2_000_000)),
    "tiff of 600,000 rows of fax": Bomb(413, lambda: fax_of_noise(600_000)),
    "bmp, 7000 x 7000 in its header": Bomb(413, bmp_of_no_pixels),
    "bmp of 2 MB of run lengths": Bomb(413, lambda: write_run_length_bmp((1900, 1900), b"\1\1" * MEBI)),
    "bmp of 3000 x 3300 in run lengths": Bomb(413, lambda: write_run_length_bmp((3000, 3300), b"\1\1\0\0" * 3300)),
    "gif of 100,000 frames": Bomb(200, lambda: write_gif((1, 1), count=100_000)),
    "apng of 500 frames": Bomb(200, lambda: frames("PNG", 500)),
    "webp of 200 frames": Bomb(200, lambda: frames("WEBP", 200, lossless=True)),
    "tiff of 500 pages": Bomb(200, lambda: frames("TIFF", 500)),
    "avif of 20 frames": Bomb(200, lambda: frames("AVIF", 20, speed=10)),
    "tiff whose next picture is itself": Bomb(200, tiff_whose_next_picture_is_itself),
    "tiff of 8 x 8, its strip of 64 MB": Bomb(200, tiff_that_inflates),
    "tiff of 65,535 damaged rows of fax": Bomb(200, lambda: fax_of_noise(65_535)),
    "png, text of 1 MB sixty times": Bomb(200, lambda: png_with(compressed(b"zTXt", MEBI) * 60)),
    "png, orientation of two million values": Bomb(
        200, lambda: png_with(chunk(b"eXIf", write_tiff_tag(274, 3, 2_000_000)))
    ),
    "bmp of 1000 x 1000 in run lengths": Bomb(200, lambda: write_run_length_bmp((1000, 1000), ROW_OF_RUNS * 1000)),
    "jpeg, progressive": Bomb(200, lambda: PROGRESSIVE),
}
