"""Which chunks of a PNG count, and which picture of an animated one."""

import struct
import zlib

import numpy as np
import pytest
from icc_profiles import SWAPPED

from lab.hostile.picture_files import GRAY, RGB, RGBA, SIGNATURE, chunk
from vision_serving.config import ColourConfig, ImageLimits
from vision_serving.errors import ImageDecodeError, PayloadTooLargeError
from vision_serving.pictures.decoding import decode_image

LIMITS = ImageLimits()
ON_BLUE, BLUE = ColourConfig(background=(0, 0, 255)), [0, 0, 255]
PALETTE = 3
FIRST, SECOND = [200, 100, 0], [10, 20, 30]
ROW = b"\0" + bytes(FIRST + SECOND)
END = chunk(b"IEND")
EXIF = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, 2, 0)  # to be mirrored


def header(width: int, height: int, colour: int = RGB, bits: int = 8) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))


def pixels(rows: bytes = ROW) -> bytes:
    return chunk(b"IDAT", zlib.compress(rows))


def broken(data: bytes) -> bytes:
    """Return a chunk with another checksum."""
    return data[:-1] + bytes((data[-1] ^ 1,))


def decode(*chunks: bytes, colours: ColourConfig = ON_BLUE) -> list[list[list[int]]]:
    decoded: list[list[list[int]]] = decode_image(SIGNATURE + b"".join(chunks), LIMITS, colours).tolist()
    return decoded


PROFILE = chunk(b"iCCP", b"p\0\0" + zlib.compress(SWAPPED))
KEY = chunk(b"tRNS", struct.pack(">3H", *FIRST))
DAMAGED = {
    "text": broken(chunk(b"tEXt", b"a\0b")),
    "text of an unknown method": chunk(b"zTXt", b"a\0\x05b"),
    "gamma of a byte": chunk(b"gAMA", b"\0"),
    "chromaticity of a byte": chunk(b"cHRM", b"\0"),
    "rendering intent of no byte": chunk(b"sRGB"),
    "size of a byte": chunk(b"pHYs", b"\0"),
    "date": broken(chunk(b"tIME", bytes(7))),
    "unknown": broken(chunk(b"abCd", b"?")),
    "profile": broken(PROFILE),
    "profile of an unknown method": chunk(b"iCCP", b"p\0\x01" + zlib.compress(SWAPPED)),
    "profile that does not unpack": chunk(b"iCCP", b"p\0\0?"),
    "profile of 5 MB": chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(5_000_000))),
    "transparent colour": broken(KEY),
    "transparent colour of a byte": chunk(b"tRNS", b"\0"),
    "orientation": broken(chunk(b"eXIf", EXIF)),
    "animation": broken(chunk(b"acTL", struct.pack(">II", 1, 0))),
    "animation of a byte": chunk(b"acTL", b"\0"),
    "animation of no frames": chunk(b"acTL", bytes(8)),
    "frame": broken(chunk(b"fcTL", bytes(26))),
    "frame of a byte": chunk(b"fcTL", b"\0"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_chunk_that_is_not_needed_is_ignored(name: str) -> None:
    assert decode(header(2, 1), DAMAGED[name], pixels(), END) == [[FIRST, SECOND]]
    assert decode(header(2, 1), pixels(), DAMAGED[name], END) == [[FIRST, SECOND]]


def test_the_whole_ones_count() -> None:
    assert decode(header(2, 1), KEY, pixels(), END) == [[BLUE, SECOND]]
    assert decode(header(2, 1), chunk(b"eXIf", EXIF), pixels(), END) == [[SECOND, FIRST]]
    assert decode(header(2, 1), PROFILE, pixels(), END) != [[FIRST, SECOND]]


def test_what_describes_the_pixels_counts_before_them_and_once() -> None:
    assert decode(header(2, 1), pixels(), KEY, PROFILE, chunk(b"eXIf", EXIF), END) == [[FIRST, SECOND]]
    assert decode(header(2, 1), KEY, chunk(b"tRNS", struct.pack(">3H", *SECOND)), pixels(), END) == [[BLUE, SECOND]]


INDICES = b"\0\0\1"
COLOURS = chunk(b"PLTE", bytes(FIRST + SECOND))


@pytest.mark.parametrize(
    "chunks",
    [
        (broken(header(2, 1)), pixels(), END),
        (header(2, 1), broken(pixels()), END),
        (header(2, 1, PALETTE), broken(COLOURS), pixels(INDICES), END),
        (header(2, 1, PALETTE), pixels(INDICES), END),
        (header(2, 1), END),
        (pixels(), END),
        (header(2, 1), pixels(ROW[:-1]), END),
    ],
    ids=["header", "pixels", "palette", "no palette", "no pixels", "no header", "a pixel too few"],
)
def test_a_png_of_which_a_needed_chunk_is_damaged_or_missing_is_refused(chunks: tuple[bytes, ...]) -> None:
    with pytest.raises(ImageDecodeError):
        decode(*chunks)


def test_transparency_may_be_longer_than_its_palette() -> None:
    two, three = (chunk(b"tRNS", bytes(count)) for count in (2, 3))
    assert decode(header(2, 1, PALETTE), COLOURS, two, pixels(INDICES), END) == [[BLUE, BLUE]]
    assert decode(header(2, 1, PALETTE), COLOURS, three, pixels(INDICES), END) == [[BLUE, BLUE]]


def frame(number: int, size: tuple[int, int], place: tuple[int, int] = (0, 0)) -> bytes:
    return chunk(b"fcTL", struct.pack(">5IHHBB", number, *size, *place, 1, 10, 0, 0))


def frame_pixels(number: int, rows: bytes) -> bytes:
    return chunk(b"fdAT", struct.pack(">I", number) + zlib.compress(rows))


ANIMATED = chunk(b"acTL", struct.pack(">II", 2, 0))
OTHER = b"\0" + bytes(SECOND + FIRST)
THIRD = b"\0" + bytes(6)


def test_the_first_frame_is_the_default_image_where_a_frame_is_said_to_be() -> None:
    frames = frame(1, (2, 1)), frame_pixels(2, OTHER)
    assert decode(header(2, 1), ANIMATED, frame(0, (2, 1)), pixels(), *frames, END) == [[FIRST, SECOND]]


def test_a_default_image_that_is_no_frame_gives_way_to_the_first_frame() -> None:
    frames = frame(0, (2, 1)), frame_pixels(1, OTHER), frame(2, (2, 1)), frame_pixels(3, THIRD)
    assert decode(header(2, 1), ANIMATED, pixels(), *frames, END) == [[SECOND, FIRST]]


def test_a_frame_may_come_in_pieces() -> None:
    data = zlib.compress(OTHER)
    pieces = [chunk(b"fdAT", struct.pack(">I", number + 1) + data[3 * number :][:3]) for number in range(len(data))]
    assert decode(header(2, 1), ANIMATED, pixels(), frame(0, (2, 1)), *pieces, END) == [[SECOND, FIRST]]


@pytest.mark.parametrize(("colour", "sample"), [(GRAY, 1), (RGB, 3), (RGBA, 4)])
def test_what_the_first_frame_does_not_cover_shows_the_background(colour: int, sample: int) -> None:
    default = pixels((b"\0" + b"\xff" * 3 * sample) * 3)
    part = frame_pixels(1, b"\0" + b"\xff" * 2 * sample)
    decoded = decode(header(3, 3, colour), ANIMATED, default, frame(0, (2, 1), (1, 2)), part, END)
    expected = np.full((3, 3, 3), BLUE)
    expected[2, 1:] = 255
    assert decoded == expected.tolist()


@pytest.mark.parametrize(
    "frames",
    [
        (),
        (frame(1, (2, 1)), frame_pixels(2, OTHER)),
        (frame(0, (2, 1), (1, 0)), frame_pixels(1, OTHER)),
        (frame(0, (2**31, 1), (2**31, 0)), frame_pixels(1, OTHER)),
    ],
    ids=["none", "the second one", "beyond the picture", "far beyond the picture"],
)
def test_an_animation_without_a_valid_first_frame_is_its_default_image(frames: tuple[bytes, ...]) -> None:
    assert decode(header(2, 1), ANIMATED, pixels(), *frames, END) == [[FIRST, SECOND]]


def test_an_animation_that_is_cut_off_before_its_first_frame_is_refused() -> None:
    with pytest.raises(ImageDecodeError):
        decode(header(2, 1), ANIMATED, pixels())
    with pytest.raises(ImageDecodeError):
        decode(header(2, 1), ANIMATED, pixels(), frame(0, (2, 1)))
    whole = ANIMATED, pixels(), frame(0, (2, 1)), frame_pixels(1, OTHER)
    assert decode(header(2, 1), *whole) == [[SECOND, FIRST]]


def test_the_limit_of_pixels_is_that_of_the_picture_and_not_of_its_frame() -> None:
    frames = frame(0, (1, 1)), frame_pixels(1, bytes(4))
    with pytest.raises(PayloadTooLargeError):
        decode_image(
            SIGNATURE + b"".join((header(20, 20), ANIMATED, pixels(), *frames, END)), ImageLimits(max_pixels=399)
        )
