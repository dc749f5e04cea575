"""Files that would cost far more than they weigh: refused at once, or served at the price of what is seen of them."""

import subprocess
import sys
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import PIL.Image
import pytest
from fakes import encode_image, noise_image
from picture_files import (
    RGB,
    chunk,
    forge_size,
    gray_tiff,
    repeat_last_scan,
    write_black_png,
    write_flat_webp,
    write_gif,
    write_png,
    write_png_header,
    write_tiled_tiff,
)

from vision_serving.config import ImageLimits
from vision_serving.errors import PayloadTooLargeError
from vision_serving.images import decode_image

LIMITS = ImageLimits()
MEBI = 1 << 20
MAX_CPU_S, MAX_RISE_MIB = 1.0, 150

SMALL_JPEG = encode_image(noise_image(0, (8, 8)), "JPEG")
PROGRESSIVE = encode_image(noise_image(0, (64, 64)), "JPEG", progressive=True)
ONE_GRAY_SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\x00"


def png_with(chunks: bytes) -> bytes:
    return write_png((1, 1), 8, RGB, b"\0\1\2\3", chunks)


def compressed(kind: bytes, size: int) -> bytes:
    return chunk(kind, b"name\0\0" + zlib.compress(bytes(size), 9))


def frames(kind: str, count: int, **options: Any) -> bytes:
    shades = [
        PIL.Image.new("RGB", (16, 16), (number % 2 * 255, number % 256, number // 256)) for number in range(count)
    ]
    return encode_image(shades[0], kind, save_all=True, append_images=shades[1:], **options)


def webp_with_a_large_canvas() -> bytes:
    encoded = frames("WEBP", 2, lossless=True)
    size = encoded.index(b"VP8X") + 12
    return encoded[:size] + b"\xff\x3f\0\x10\x27\0" + encoded[size + 6 :]  # 16384 x 10001


def bmp_of_no_pixels() -> bytes:
    encoded = bytearray(encode_image(noise_image(0, (1, 1)), "BMP"))
    encoded[18:26] = (7000).to_bytes(4, "little") * 2
    return bytes(encoded)


# Each is made when it is needed.
REFUSED: dict[str, Callable[[], bytes]] = {
    "png of 1 bit, 13376 x 13376": lambda: write_black_png(13376),
    "png of 1 bit, 7000 x 7000": lambda: write_black_png(7000),
    "png as large as one can say": lambda: write_png_header(2**31 - 1, 2**31 - 1),
    "png, text of 64 MB": lambda: png_with(compressed(b"zTXt", 64 * MEBI)),
    "png, text of 1 MB a hundred times": lambda: png_with(compressed(b"zTXt", MEBI) * 100),
    "png, profile of 64 MB": lambda: png_with(compressed(b"iCCP", 64 * MEBI)),
    "png, profile of 1 MB five thousand times": lambda: png_with(compressed(b"iCCP", MEBI) * 5000),
    "jpeg, 9400 x 9400 in its header": lambda: forge_size(SMALL_JPEG, 9400, 9400),
    "jpeg, 7000 x 7000 in its header": lambda: forge_size(SMALL_JPEG, 7000, 7000),
    "jpeg, 65535 x 65535 in its header": lambda: forge_size(SMALL_JPEG, 65535, 65535),
    "jpeg, progressive, 3000 scans": lambda: repeat_last_scan(forge_size(PROGRESSIVE, 3000, 3000), 3000),
    "jpeg, sequential, 3000 scans": lambda: (
        forge_size(SMALL_JPEG, 3000, 3000)[:-2] + ONE_GRAY_SCAN * 3000 + b"\xff\xd9"
    ),
    "gif of 65535 x 65535": lambda: write_gif((65535, 65535)),
    "gif whose frame is 65535 x 65535": lambda: write_gif((1, 1), frame=(65535, 65535)),
    "webp of 16383 x 16383": lambda: write_flat_webp(16383),
    "webp of 7000 x 7000": lambda: write_flat_webp(7000),
    "webp, animated, 16384 x 10001": webp_with_a_large_canvas,
    "avif of 3300 x 3300": lambda: encode_image(PIL.Image.new("L", (3300, 3300)), "AVIF", speed=10),
    "tiff of 65535 x 65535": lambda: gray_tiff(b"", 8, (65535, 65535)),
    "tiff of 1 x 1 from a tile of 12000 x 12000": lambda: write_tiled_tiff((1, 1), (12000, 12000)),
    "bmp, 7000 x 7000 in its header": bmp_of_no_pixels,
}
SERVED: dict[str, Callable[[], bytes]] = {
    "gif of 100,000 frames": lambda: write_gif((1, 1), count=100_000),
    "apng of 500 frames": lambda: frames("PNG", 500),
    "webp of 200 frames": lambda: frames("WEBP", 200, lossless=True),
    "tiff of 500 pages": lambda: frames("TIFF", 500),
    "avif of 20 frames": lambda: frames("AVIF", 20, speed=10),
    "png, text of 1 MB sixty times": lambda: png_with(compressed(b"zTXt", MEBI) * 60),
    "jpeg, progressive": lambda: PROGRESSIVE,
}

# Each file in a process of its own, whose memory began with what the parent held.
MEASURE = """
import os, resource, sys, time
from pathlib import Path
import orjson
import vision_serving.images as images
from vision_serving.config import ImageLimits
from vision_serving.errors import RequestError

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def decode(data):
    began, before = time.process_time(), peak_mib()
    try:
        status = 200 if images.decode_image(data, ImageLimits()).size else 0
    except RequestError as error:
        status = error.status
    return {"status": status, "cpu_s": time.process_time() - began, "rise_mib": peak_mib() - before}

images.load_formats(())
for path in map(Path, sys.argv[1:]):
    data = path.read_bytes()
    if os.fork() == 0:
        path.with_suffix(".json").write_bytes(orjson.dumps(decode(data)))
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """What the decoding of each file took."""
    folder = tmp_path_factory.mktemp("bombs")
    paths = {name: folder / str(number) for number, name in enumerate({**REFUSED, **SERVED})}
    for name, path in paths.items():
        path.write_bytes({**REFUSED, **SERVED}[name]())
    finished = subprocess.run([sys.executable, "-c", MEASURE, *paths.values()], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return {name: orjson.loads(path.with_suffix(".json").read_bytes()) for name, path in paths.items()}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_would_swell_is_refused_at_once(name: str, costs: dict[str, dict[str, float]]) -> None:
    cost = costs[name]
    assert 400 <= cost["status"] < 500
    assert cost["cpu_s"] <= MAX_CPU_S
    assert cost["rise_mib"] <= MAX_RISE_MIB


@pytest.mark.parametrize("name", SERVED)
def test_of_a_long_file_only_what_is_seen_is_paid(name: str, costs: dict[str, dict[str, float]]) -> None:
    cost = costs[name]
    assert cost["status"] == 200
    assert cost["cpu_s"] <= MAX_CPU_S
    assert cost["rise_mib"] <= MAX_RISE_MIB


def test_the_pixel_limit_itself_is_allowed() -> None:
    encoded = encode_image(noise_image(0, (10, 10)))
    assert decode_image(encoded, ImageLimits(max_pixels=100)).shape == (10, 10, 3)
    with pytest.raises(PayloadTooLargeError, match="10 x 10 = 100 pixels; the limit is 99"):
        decode_image(encoded, ImageLimits(max_pixels=99))


def test_a_blank_page_may_be_as_small_as_its_format_makes_it() -> None:
    blank = PIL.Image.new("1", (2480, 3508), 255)  # A4 at 300 dots per inch
    encoded = encode_image(blank, "TIFF", compression="group4")
    assert len(encoded) < 2000
    assert (decode_image(encoded, LIMITS) == 255).all()


def test_the_pixels_per_byte_are_a_limit_of_the_archive() -> None:
    encoded = write_black_png(3500)
    with pytest.raises(
        PayloadTooLargeError, match=r"3500 x 3500 = 12,250,000 pixels in .* limit is 2,000 pixels a byte"
    ):
        decode_image(encoded, LIMITS)
    assert decode_image(encoded, ImageLimits(max_pixels_per_byte=10_000)).shape == (3500, 3500, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_large_picture_of_one_colour_is_served(kind: str) -> None:
    """2000 pixels a byte are more than these formats can reach with 8 bits a pixel."""
    encoded = encode_image(PIL.Image.new("L", (4000, 2600), 200), kind, optimize=True)
    assert decode_image(encoded, LIMITS).shape == (2600, 4000, 3)


def test_a_tile_may_be_larger_than_its_picture() -> None:
    decoded = decode_image(write_tiled_tiff((10, 10), (256, 256)), LIMITS)
    assert decoded.shape == (10, 10, 3)
    assert not np.any(decoded)


def test_a_picture_with_many_chunks_is_served() -> None:
    encoded = png_with(chunk(b"tEXt", b"a\0b") * 1000)
    assert decode_image(encoded, LIMITS).tolist() == [[[1, 2, 3]]]
