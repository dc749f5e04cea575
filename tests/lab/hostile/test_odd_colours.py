"""Pictures that Pillow reads and cannot write: deep, with 0 as white, of many samples, of damaged rows."""

import struct
import zlib
from contextlib import suppress
from typing import Any

import pytest
from icc_profiles import SWAPPED

from lab.hostile.bombs import fax_of_noise
from lab.hostile.picture_files import GRAY_ALPHA, RGB, RGBA, chunk, gray_tiff, rgb_tiff, write_png, write_tiff
from vision_serving.config import ColourConfig, ImageLimits
from vision_serving.errors import RequestError, UnsupportedFormatError
from vision_serving.pictures.decoding import decode_image
from vision_serving.pictures.formats import load_formats

LIMITS = ImageLimits()


def words(*values: int, order: str = "big") -> bytes:
    return b"".join(value.to_bytes(2, order) for value in values)  # type: ignore[arg-type]


DEEP = 0x1234, 0x8000, 0xFFFF  # whose high bytes are
HIGH = 0x12, 0x80, 0xFF
LITTLE = words(*DEEP, order="little")
GRAYS = [[level] * 3 for level in HIGH]
BEHIND = [0, 0, 255]


def decode_row(encoded: bytes) -> list[list[int]]:
    """Return the pixels on blue."""
    (row,) = decode_image(encoded, LIMITS, ColourConfig(background=(0, 0, 255))).tolist()
    return [list(pixel) for pixel in row]


@pytest.mark.parametrize(
    ("encoded", "pixels"),
    [
        (gray_tiff(words(*DEEP), 16, (3, 1), order=">"), GRAYS),
        (gray_tiff(LITTLE, 16, (3, 1), white_is_zero=True), [[255 - level] * 3 for level in HIGH]),
        (gray_tiff(bytes((255, 0)), 8, (2, 1), white_is_zero=True), [[0] * 3, [255] * 3]),
        (gray_tiff(bytes((0x12, 0x3F, 0xFF)), 12, (2, 1)), [[0x12] * 3, [255] * 3]),
        (gray_tiff(struct.pack("<3I", 0x6400, 5, 0xFFFFFFFF), 32, (3, 1)), [[100] * 3, [0] * 3, [255] * 3]),
        (write_png((1, 1), 16, RGB, b"\0" + words(*DEEP)), [list(HIGH)]),
        (rgb_tiff(LITTLE, 16, (1, 1)), [list(HIGH)]),
        (rgb_tiff(words(*DEEP), 16, (1, 1), order=">"), [list(HIGH)]),
        (write_png((4, 1), 2, 0, b"\0\x1b", chunk(b"tRNS", words(1))), [[0] * 3, BEHIND, [170] * 3, [255] * 3]),
        (write_png((2, 1), 4, 0, b"\0\x3f", chunk(b"tRNS", words(3))), [BEHIND, [255] * 3]),
        (write_png((2, 1), 16, 0, b"\0" + words(0x1234, 0x8000), chunk(b"tRNS", words(0x1234))), [BEHIND, [128] * 3]),
        (write_png((2, 1), 16, RGB, b"\0" + words(*DEEP, 0, 0, 0), chunk(b"tRNS", words(*DEEP))), [BEHIND, [0] * 3]),
        (write_png((2, 1), 16, GRAY_ALPHA, b"\0" + words(0x8000, 0, 0x8000, 0xFFFF)), [BEHIND, [128] * 3]),
        (write_png((1, 1), 16, RGBA, b"\0" + words(*DEEP, 0)), [BEHIND]),
        (write_tiff({256: 2, 257: 1, 258: (8, 8), 259: 1, 262: 1, 277: 2, 278: 1, 338: 1}, bytes((0, 0, 7, 255))),
         [BEHIND, [7] * 3]),
    ],
    ids=["16-bit gray tiff, big-endian", "16-bit tiff, 0 is white", "8-bit tiff, 0 is white", "12-bit tiff",
         "32-bit tiff",
         "16-bit rgb png", "16-bit rgb tiff", "16-bit rgb tiff, big-endian", "2-bit gray with a key",
         "4-bit gray with a key", "16-bit gray with a key", "16-bit rgb with a key", "16-bit gray + alpha",
         "16-bit rgba", "gray tiff that holds products"],
)  # fmt: skip
def test_a_picture_made_by_hand_has_its_colours_over_the_background(encoded: bytes, pixels: list[list[int]]) -> None:
    assert decode_row(encoded) == pixels


SAMPLES = {256: 2, 257: 1, 259: 1, 262: 1, 277: 1, 278: 1}


@pytest.mark.parametrize(
    ("encoded", "kind"),
    [
        (write_tiff(SAMPLES | {258: 16, 339: 3}, bytes(4)), "floating-point numbers"),
        (write_tiff(SAMPLES | {258: 8, 339: 2}, bytes(2)), "signed integers"),
        (write_tiff(SAMPLES | {258: 16, 339: 2}, bytes(4)), "signed integers"),
        (write_tiff(SAMPLES | {258: (8, 8, 8), 262: 2, 277: 3, 339: (2, 2, 2)}, bytes(6)), "signed integers"),
        (write_tiff(SAMPLES | {258: 64, 339: 6}, bytes(16)), "complex numbers"),
    ],
)
def test_samples_whose_white_is_not_known_are_refused(encoded: bytes, kind: str) -> None:
    with pytest.raises(UnsupportedFormatError, match=f"a TIFF of {kind}, whose white is not known"):
        decode_image(encoded, LIMITS)


NEAR = 0x1235, 0x8000, 0xFFFF  # the high bytes of DEEP


@pytest.mark.parametrize(
    ("colour", "levels"), [(0, ((0x1234,), (0x1235,), (0x1134,))), (RGB, (DEEP, NEAR, (0x1234, 0x8001, 0xFFFF)))]
)
def test_a_transparent_colour_of_16_bits_is_none_of_the_same_high_bytes(colour: int, levels: Any) -> None:
    rows = b"\0" + b"".join(words(*level) for level in levels)
    encoded = write_png((3, 1), 16, colour, rows, chunk(b"tRNS", words(*levels[0])))
    clear, *solid = decode_row(encoded)
    assert clear == BEHIND
    assert solid == [[level >> 8 for level in (*pixel * 3,)[:3]] for pixel in levels[1:]]


def test_a_transparent_colour_of_16_bits_stays_clear_where_a_profile_converts() -> None:
    rows = b"\0" + words(*DEEP, *NEAR)
    profile = chunk(b"iCCP", b"p\0\0" + zlib.compress(SWAPPED))
    encoded = write_png((2, 1), 16, RGB, rows, profile + chunk(b"tRNS", words(*DEEP)))
    assert decode_row(encoded)[0] == BEHIND
    assert decode_row(encoded)[1] != BEHIND


@pytest.mark.parametrize(("bits", "key"), [(1, 0xFFFE), (2, 0x0100), (4, 0xF0), (8, 0x0500)])
def test_of_a_transparent_level_the_bits_of_the_picture_count(bits: int, key: int) -> None:
    encoded = write_png((1, 1), bits, 0, b"\0\0", chunk(b"tRNS", words(key)))
    assert decode_row(encoded) == [BEHIND]


@pytest.mark.parametrize("samples", [1000, 65_535])
def test_pillow_itself_logs_nothing_of_a_picture(samples: int, capfd: pytest.CaptureFixture[str]) -> None:
    load_formats(ImageLimits().formats)
    with suppress(RequestError):
        decode_image(write_tiff({256: 4, 257: 4, 258: 8, 259: 1, 262: 1, 277: samples, 278: 4}, bytes(16)), LIMITS)
    assert capfd.readouterr() == ("", "")


def test_a_fax_of_errors_is_decoded_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    load_formats(ImageLimits().formats)
    assert decode_image(fax_of_noise(20_000), LIMITS).shape == (20_000, 16, 3)
    assert capfd.readouterr() == ("", "")
