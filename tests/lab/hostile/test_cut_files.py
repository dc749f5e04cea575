"""JPEG and PNG files that end too early: served where no pixel is missing, refused where one is."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import PIL.Image
import pytest
from fakes import encode_image, generate_image, noise_image
from numpy.typing import NDArray

from lab.hostile.picture_files import GRAY, RGB, RGBA, chunk, insert_into_jpeg, jpeg_segment, write_png
from vision_serving.config import ImageLimits
from vision_serving.errors import ImageDecodeError
from vision_serving.pictures.decoding import Image, decode_image, shrink_jpeg

LIMITS = ImageLimits()
SIZE = (19, 35)  # no multiple of a block: of the last one, few pixels are seen
SOFT, NOISE = (PIL.Image.fromarray(draw(1, SIZE)) for draw in (generate_image, noise_image))
END = 2  # bytes of the marker that a JPEG ends with
TAIL = 12 + 4 + 4  # of a PNG: IEND, a checksum, and that of the compressed pixels


def scan_by_scan(pictures: Sequence[PIL.Image.Image]) -> bytes:
    """Write a JPEG of YCbCr whose components come one after the other. pictures: gray, of one size."""
    files = [encode_image(picture, "JPEG") for picture in pictures]
    frame, scan = (files[0].index(b"\xff" + marker) for marker in (b"\xc0\0\x0b", b"\xda\0\x08"))
    tables = files[0][2:frame], files[0][frame + 13 : scan]
    components = b"".join(bytes((number, 0x11, 0)) for number in (1, 2, 3))
    head = jpeg_segment(0xC0, files[0][frame + 4 : frame + 9] + b"\3" + components)
    scans = [
        jpeg_segment(0xDA, bytes((1, number, 0, 0, 63, 0))) + file[file.index(b"\xff\xda\0\x08") + 10 : -END]
        for number, file in enumerate(files, 1)
    ]
    return b"\xff\xd8" + tables[0] + head + tables[1] + b"".join(scans) + b"\xff\xd9"


def interlace(pixels: NDArray[np.uint8]) -> bytes:
    """Return the rows of the seven passes."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    parts = (pixels[y::step_y, x::step_x] for x, y, step_x, step_y in passes)
    return b"".join(b"\0" + row.tobytes() for part in parts if part.shape[1] for row in part)


def interlaced_png(pixels: Image) -> bytes:
    encoded = bytearray(write_png((pixels.shape[1], pixels.shape[0]), 8, RGB, interlace(pixels)))
    encoded[16:33] = chunk(b"IHDR", bytes(encoded[16:28]) + b"\1")[8:]
    return bytes(encoded)


def rows_of(bits: int, samples: int) -> bytes:
    width, height = 11, 7
    rows = np.random.default_rng(bits).integers(0, 256, (height, (width * bits * samples + 7) // 8), dtype=np.uint8)
    return b"".join(b"\0" + row.tobytes() for row in rows)


ODD_PNG = partial(write_png, (11, 7))
JPEGS = {
    "soft": encode_image(SOFT, "JPEG"),
    "noise of the best quality": encode_image(NOISE, "JPEG", quality=100),
    "without subsampling": encode_image(NOISE, "JPEG", quality=100, subsampling=0),
    "gray": encode_image(SOFT.convert("L"), "JPEG"),
    "CMYK": encode_image(SOFT.convert("CMYK"), "JPEG"),
    "progressive": encode_image(SOFT, "JPEG", progressive=True),
    "progressive noise": encode_image(NOISE, "JPEG", progressive=True, quality=100, subsampling=0),
    "restarted after each block": encode_image(NOISE, "JPEG", restart_marker_blocks=1),
    "restarted after each row": encode_image(SOFT, "JPEG", restart_marker_rows=1, optimize=True),
    "a scan for each component": scan_by_scan([NOISE.getchannel(channel) for channel in "RGB"]),
    "with a second picture": encode_image(SOFT, "MPO", save_all=True, append_images=[NOISE]),
    "with a thumbnail": insert_into_jpeg(encode_image(SOFT, "JPEG"), jpeg_segment(0xE5, encode_image(NOISE, "JPEG"))),
}
PNGS = {
    "rgb": encode_image(SOFT),
    "noise": encode_image(NOISE),
    **{
        f"one colour, {side} high": encode_image(PIL.Image.new("RGB", (99, side), (200, 10, 20)))
        for side in (7, 35, 60)
    },
    "palette": encode_image(SOFT.quantize(16)),
    "1 bit": ODD_PNG(1, GRAY, rows_of(1, 1)),
    "16 bits": ODD_PNG(16, RGB, rows_of(16, 3)),
    "16 bits with alpha": ODD_PNG(16, RGBA, rows_of(16, 4)),
    "interlaced": interlaced_png(noise_image(2, SIZE)),
    "interlaced, of one column": interlaced_png(noise_image(2, (9, 1))),
    "with text at its end": encode_image(SOFT)[:-12] + chunk(b"tEXt", b"a\0" + bytes(9)) + chunk(b"IEND"),
}
FILES = {f"JPEG {name}": data for name, data in JPEGS.items()} | {f"PNG {name}": data for name, data in PNGS.items()}


def find_served_cuts(encoded: bytes, lengths: Sequence[int]) -> list[int]:
    """Return at which of the lengths a cut file is served, each with the pixels of the whole one."""
    whole, served = decode_image(encoded, LIMITS), []
    for length in lengths:
        try:
            pixels = decode_image(encoded[:length], LIMITS)
        except ImageDecodeError:
            continue
        assert pixels.shape == whole.shape
        assert (pixels == whole).all(), f"{length} of {len(encoded)} bytes"
        served.append(length)
    return served


@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_has_all_its_pixels_or_is_refused(name: str) -> None:
    encoded = FILES[name]
    near_the_end = range(len(encoded) - 80, len(encoded))
    find_served_cuts(encoded, [*range(1, len(encoded) - 80, 37), *near_the_end])


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}], ids=str)
def test_no_last_bytes_are_guessed_whose_meaning_few_pixels_show(options: dict[str, bool]) -> None:
    for seed in range(60):
        pixels = np.full((1 + seed, 64 - seed // 2, 3), 255 - 5 * (seed % 3), np.uint8)
        pixels[-1 - seed % 4 :, -1 - seed % 4 :] = np.random.default_rng(seed).integers(0, 256, 3)
        for quality, subsampling in ((75, 2), (95, 0), (100, 0)):
            encoded = encode_image(pixels, "JPEG", quality=quality, subsampling=subsampling, **options)
            find_served_cuts(encoded, range(len(encoded) - 7, len(encoded)))


SEVERAL_SCANS = ["progressive", "progressive noise", "a scan for each component"]


@pytest.mark.parametrize("name", [name for name in JPEGS if name not in SEVERAL_SCANS])
def test_a_jpeg_is_served_without_its_end_marker(name: str) -> None:
    lengths = [len(JPEGS[name]) - END, len(JPEGS[name]) - 1]
    assert find_served_cuts(JPEGS[name], lengths) == lengths


def test_a_jpeg_is_refused_without_a_scan_of_one_component() -> None:
    """Also where the compressed pixels of the scans before it are whole."""
    encoded = JPEGS["a scan for each component"]
    with pytest.raises(ImageDecodeError):
        decode_image(encoded[: encoded.rindex(b"\xff\xda")], LIMITS)


@pytest.mark.parametrize("name", SEVERAL_SCANS)
def test_a_jpeg_of_several_scans_is_refused_from_its_last_scans_on_unless_a_marker_ends_them(name: str) -> None:
    before = JPEGS[name].rindex(b"\xff\xda", 0, JPEGS[name].rindex(b"\xff\xda"))
    assert find_served_cuts(JPEGS[name], range(before, len(JPEGS[name]))) == []


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_is_served_that_ends_within_a_comment_behind_its_pixels(name: str) -> None:
    comment = jpeg_segment(0xFE, bytes(2000))
    encoded = JPEGS[name][:-END] + comment[:100]
    assert (decode_image(encoded, LIMITS) == decode_image(JPEGS[name], LIMITS)).all()


def test_a_jpeg_without_its_end_marker_shrinks() -> None:
    encoded = encode_image(noise_image(0, (161, 83)), "JPEG")
    shrink = partial(shrink_jpeg, spare=lambda size_hw: 4.0)
    whole, cut = (decode_image(data, LIMITS, shrink=shrink) for data in (encoded, encoded[:-END]))
    assert whole.shape == (41, 21, 3)
    assert (cut == whole).all()


@pytest.mark.parametrize("name", PNGS)
def test_a_png_is_served_without_what_follows_its_pixels(name: str) -> None:
    lengths = list(range(len(PNGS[name]) - TAIL, len(PNGS[name])))
    assert find_served_cuts(PNGS[name], lengths) == lengths
