import io
import random
import struct
import zlib
from collections.abc import Callable
from functools import partial

import numpy as np
import PIL.Image
import pytest
from fakes import encode_image, noise_image
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_serving.config import ImageLimits
from vision_serving.errors import (
    ImageDecodeError,
    PayloadTooLargeError,
    RequestError,
    UnsupportedFormatError,
)
from vision_serving.images import EXIF_ORIENTATION, Image, decode_image, shrink_jpeg

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow comments on broken files

LIMITS = ImageLimits()

# 2 rows, 3 columns, all six pixels different: no two orientations look alike.
ASYMMETRIC = np.array([[[10, 0, 0], [20, 0, 0], [30, 0, 0]], [[40, 0, 0], [50, 0, 0], [60, 0, 0]]], dtype=np.uint8)
UPRIGHT_REDS = {
    1: [[10, 20, 30], [40, 50, 60]],
    2: [[30, 20, 10], [60, 50, 40]],
    3: [[60, 50, 40], [30, 20, 10]],
    4: [[40, 50, 60], [10, 20, 30]],
    5: [[10, 40], [20, 50], [30, 60]],
    6: [[40, 10], [50, 20], [60, 30]],
    7: [[60, 30], [50, 20], [40, 10]],
    8: [[30, 60], [20, 50], [10, 40]],
}


def exif(orientation: int) -> PIL.Image.Exif:
    block = PIL.Image.Exif()
    block[EXIF_ORIENTATION] = orientation
    return block


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(("orientation", "reds"), UPRIGHT_REDS.items(), ids=[f"orientation {n}" for n in UPRIGHT_REDS])
def test_a_picture_is_turned_upright_as_its_exif_says(kind: str, orientation: int, reds: list[list[int]]) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    encoded = encode_image(ASYMMETRIC, kind, exif=exif(orientation), **options)
    assert decode_image(encoded, LIMITS)[:, :, 0].tolist() == reds


@pytest.mark.parametrize("orientation", UPRIGHT_REDS)
def test_a_jpeg_is_turned_upright_as_its_exif_says(orientation: int) -> None:
    blocks = np.kron(ASYMMETRIC, np.ones((16, 16, 1), dtype=np.uint8))
    decoded = decode_image(encode_image(blocks, "JPEG", quality=95, subsampling=0, exif=exif(orientation)), LIMITS)
    assert np.abs(decoded[8::16, 8::16, 0].astype(int) - UPRIGHT_REDS[orientation]).max() <= 4  # JPEG is lossy


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_exif_does_not_define_is_ignored(orientation: int) -> None:
    assert (decode_image(encode_image(ASYMMETRIC, exif=exif(orientation)), LIMITS) == ASYMMETRIC).all()


@pytest.mark.parametrize("block", [b"Exif\x00\x00garbage", b"Exif\x00\x00II*\x00\xff\xff\xff\xff", b"\x00" * 40])
def test_a_damaged_exif_block_does_not_spoil_the_picture(block: bytes) -> None:
    assert decode_image(encode_image(ASYMMETRIC, "JPEG", exif=block), LIMITS).shape == (2, 3, 3)


GRAY = PIL.Image.fromarray(np.array([[0, 100, 255]], dtype=np.uint8))
PALETTE = PIL.Image.new("P", (2, 1))
PALETTE.putpalette([9, 8, 7, 200, 100, 50])
PALETTE.putpixel((1, 0), 1)
CMYK = PIL.Image.new("CMYK", (1, 1), (0, 255, 255, 0))
DEEP_GRAY = PIL.Image.fromarray(np.array([[0, 0x6400, 0xFFFF]], dtype=np.uint16))


@pytest.mark.parametrize(
    ("encoded", "pixels"),
    [
        (encode_image(GRAY), [[0] * 3, [100] * 3, [255] * 3]),
        (encode_image(GRAY.convert("LA")), [[0] * 3, [100] * 3, [255] * 3]),
        (encode_image(PALETTE), [[9, 8, 7], [200, 100, 50]]),
        (encode_image(PALETTE, transparency=0), [[9, 8, 7], [200, 100, 50]]),
        (encode_image(PIL.Image.new("RGBA", (1, 1), (1, 2, 3, 128))), [[1, 2, 3]]),
        (encode_image(CMYK, "TIFF"), [[255, 0, 0]]),
        (encode_image(PIL.Image.new("1", (1, 1), 1)), [[255] * 3]),
        (encode_image(DEEP_GRAY), [[0] * 3, [100] * 3, [255] * 3]),
        (encode_image(DEEP_GRAY, "TIFF"), [[0] * 3, [100] * 3, [255] * 3]),
        (encode_image(PIL.Image.new("I", (1, 1), 0x6400), "TIFF"), [[100] * 3]),
        (encode_image(PIL.Image.new("RGB", (1, 1), (5, 6, 7)), "BMP"), [[5, 6, 7]]),
    ],
    ids=["L", "LA", "P", "P transparent", "RGBA", "CMYK", "1", "I;16 png", "I;16 tiff", "I", "1x1 bmp"],
)
def test_every_colour_mode_becomes_rgb(encoded: bytes, pixels: list[list[int]]) -> None:
    decoded = decode_image(encoded, LIMITS)
    assert decoded.dtype == np.uint8
    assert decoded[0].tolist() == pixels


def test_a_cmyk_jpeg_becomes_rgb() -> None:
    decoded = decode_image(encode_image(CMYK.resize((16, 16)), "JPEG", quality=95), LIMITS)
    assert np.abs(decoded[8, 8].astype(int) - [255, 0, 0]).max() <= 4  # JPEG is lossy


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_served(kind: str) -> None:
    red, blue = PIL.Image.new("RGB", (4, 4), (255, 0, 0)), PIL.Image.new("RGB", (4, 4), (0, 0, 255))
    lossless = {"lossless": True} if kind == "WEBP" else {}
    encoded = encode_image(red, kind, save_all=True, append_images=[blue] * 3, **lossless)
    assert decode_image(encoded, LIMITS)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 16384), (16384, 1)])
def test_extreme_shapes_are_decoded(size_hw: tuple[int, int]) -> None:
    assert decode_image(encode_image(noise_image(0, size_hw)), LIMITS).shape == (*size_hw, 3)


def truncated(kind: str) -> bytes:
    whole = encode_image(noise_image(1, (64, 64)), kind)
    return whole[: len(whole) // 2]


@pytest.mark.parametrize(
    "encoded",
    [b"", b"\x00", b"garbage" * 100, b"<html>", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff", b"II*\x00", b"BM",
     *(truncated(kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"))],
    ids=["empty", "one byte", "garbage", "html", "png signature", "gif signature", "jpeg signature", "tiff signature",
         "bmp signature", "cut png", "cut jpeg", "cut gif", "cut webp", "cut bmp", "cut tiff"],
)  # fmt: skip
def test_what_is_not_a_whole_image_is_a_decode_error(encoded: bytes) -> None:
    with pytest.raises(ImageDecodeError):
        decode_image(encoded, LIMITS)


def tiff_with_an_endless_offset() -> bytes:
    encoded = bytearray(encode_image(noise_image(0, (8, 8)), "TIFF"))
    strip_offsets = encoded.index(struct.pack("<HHI", 273, 4, 1))
    encoded[strip_offsets : strip_offsets + 12] = struct.pack("<HHII", 273, 16, 1, len(encoded))
    return bytes(encoded) + b"\xff" * 8


def test_an_offset_that_no_integer_holds_is_a_decode_error() -> None:
    with pytest.raises(ImageDecodeError):
        decode_image(tiff_with_an_endless_offset(), LIMITS)


def png_header(width: int, height: int) -> bytes:
    """A PNG that says its size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\x00")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(10_000, 10_000), (2**31 - 1, 2**31 - 1)], ids=["100 Mpx", "as large as png can say"])
def test_too_many_pixels_are_refused_from_the_header_alone(size: tuple[int, int]) -> None:
    with pytest.raises(PayloadTooLargeError, match="50,000,000"):
        decode_image(png_header(*size), LIMITS)


def test_the_pixel_limit_itself_is_allowed() -> None:
    encoded = encode_image(noise_image(0, (10, 10)))
    assert decode_image(encoded, ImageLimits(max_pixels=100)).shape == (10, 10, 3)
    with pytest.raises(PayloadTooLargeError, match="10 x 10 = 100 pixels; the limit is 99"):
        decode_image(encoded, ImageLimits(max_pixels=99))


@pytest.mark.parametrize(
    "encoded",
    [b"8BPS" + b"\x00" * 40, b"%PDF-1.7", b"%!PS-Adobe", encode_image(GRAY.resize((16, 16)), "ICO"),
     b'<svg xmlns="http://www.w3.org/2000/svg"/>', b'<?xml version="1.0"?><svg/>', b"\xff\x0a\x00\x00",
     b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\x00\x00\x00\x1cftypheic", b"PK\x03\x04"],
    ids=["psd", "pdf", "ps", "ico", "svg", "xml", "jxl", "jp2", "heic", "zip"],
)  # fmt: skip
def test_a_known_format_that_is_not_served_is_415_and_the_message_says_what_is(encoded: bytes) -> None:
    with pytest.raises(UnsupportedFormatError, match="JPEG, PNG, WEBP, BMP, TIFF, GIF"):
        decode_image(encoded, LIMITS)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_a_served_format_that_an_archive_does_not_allow_is_415(kind: str) -> None:
    with pytest.raises(UnsupportedFormatError, match="PNG"):
        decode_image(encode_image(ASYMMETRIC, kind), ImageLimits(formats=("PNG",)))


def decodes_or_refuses(encoded: bytes) -> None:
    try:
        decoded = decode_image(encoded, ImageLimits(max_pixels=1_000_000))
    except RequestError:
        return
    assert decoded.dtype == np.uint8
    assert decoded.ndim == 3
    assert decoded.shape[2] == 3


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"MM\x00*"]),
)
def test_any_bytes_are_an_image_or_a_request_error(tail: bytes, signature: bytes) -> None:
    decodes_or_refuses(signature + tail)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_an_image_with_flipped_bits_is_an_image_or_a_request_error(kind: str) -> None:
    whole = encode_image(noise_image(2, (24, 24)), kind, exif=exif(6))
    chance = random.Random(kind)
    for _ in range(300):
        broken = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            # Most flips go into the first bytes, where the structure of a file is.
            position = chance.randrange(min(len(broken), 120) if chance.random() < 0.7 else len(broken))
            broken[position] ^= 1 << chance.randrange(8)
        decodes_or_refuses(bytes(broken))


def test_a_decoded_image_is_independent_of_its_bytes() -> None:
    encoded = io.BytesIO(encode_image(ASYMMETRIC))
    first: Image = decode_image(encoded.getvalue(), LIMITS)
    encoded.truncate(0)
    assert (first == ASYMMETRIC).all()


def spare_of(least: int) -> Callable[[tuple[int, int]], float]:
    """Images may shrink to this height, however narrow they get."""
    return lambda size_hw: size_hw[0] / least


@pytest.mark.parametrize(
    ("least", "size_hw"),
    [(160, (160, 80)), (81, (160, 80)), (80, (80, 40)), (21, (40, 20)), (10, (20, 10)), (1, (20, 10))],
)
def test_a_jpeg_shrinks_by_powers_of_two_as_far_as_it_may(least: int, size_hw: tuple[int, int]) -> None:
    encoded = encode_image(noise_image(0, size_hw=(160, 80)), "JPEG")
    decoded = decode_image(encoded, LIMITS, shrink=partial(shrink_jpeg, spare=spare_of(least)))
    assert decoded.shape[:2] == size_hw


def test_what_may_shrink_is_the_upright_picture() -> None:
    encoded = encode_image(noise_image(0, size_hw=(80, 160)), "JPEG", exif=exif(6))
    assert decode_image(encoded, LIMITS, shrink=partial(shrink_jpeg, spare=spare_of(80))).shape[:2] == (80, 40)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_only_jpegs_shrink(kind: str) -> None:
    encoded = encode_image(noise_image(0, size_hw=(160, 80)), kind)
    assert decode_image(encoded, LIMITS, shrink=partial(shrink_jpeg, spare=spare_of(10))).shape[:2] == (160, 80)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_smaller_jpeg_has_the_colours_of_the_whole_one(mode: str) -> None:
    encoded = encode_image(PIL.Image.new("RGB", (160, 160), (200, 200, 200)).convert(mode), "JPEG", quality=95)
    whole = decode_image(encoded, LIMITS)
    small = decode_image(encoded, LIMITS, shrink=partial(shrink_jpeg, spare=spare_of(20)))
    assert small.shape == (20, 20, 3)
    assert np.abs(small[10, 10].astype(int) - whole[80, 80]).max() <= 2
