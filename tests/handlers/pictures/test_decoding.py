import io
import random
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import PIL.AvifImagePlugin
import PIL.Image
import PIL.PngImagePlugin
import pytest
from conftest import examples
from fakes import WITHOUT_METADATA, encode_image, generate_image, noise_image
from hypothesis import given, settings
from hypothesis import strategies as st
from icc_profiles import SWAPPED

from vision_serving.config import ImageLimits
from vision_serving.errors import ImageDecodeError, PayloadTooLargeError, RequestError, UnsupportedFormatError
from vision_serving.pictures.decoding import EXIF_ORIENTATION, Image, decode_image, shrink_jpeg
from vision_serving.pictures.formats import FORMATS, load_formats

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow comments on broken files

LIMITS = ImageLimits()
WITH_HEIF = ImageLimits(formats=(*LIMITS.formats, "HEIF"))


@pytest.fixture
def heif() -> None:
    pytest.importorskip("pillow_heif", reason="pip install -r requirements/heif.txt")
    load_formats(("HEIF",))


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


EXACT = ("PNG", "TIFF", "WEBP")


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize(("orientation", "reds"), UPRIGHT_REDS.items(), ids=[f"orientation {n}" for n in UPRIGHT_REDS])
def test_a_picture_is_turned_upright_as_its_exif_says(kind: str, orientation: int, reds: list[list[int]]) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    encoded = encode_image(ASYMMETRIC, kind, exif=exif(orientation), **options)
    assert decode_image(encoded, LIMITS)[:, :, 0].tolist() == reds


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind not in (*EXACT, *WITHOUT_METADATA)])
@pytest.mark.parametrize("orientation", UPRIGHT_REDS)
def test_a_lossy_picture_is_turned_upright_as_it_says(kind: str, orientation: int, heif: None) -> None:
    blocks = np.kron(ASYMMETRIC, np.ones((16, 16, 1), dtype=np.uint8))
    decoded = decode_image(encode_image(blocks, kind, quality=95, exif=exif(orientation).tobytes()), WITH_HEIF)
    assert np.abs(decoded[8::16, 8::16, 0].astype(int) - UPRIGHT_REDS[orientation]).max() <= 4


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_exif_does_not_define_is_ignored(orientation: int) -> None:
    assert (decode_image(encode_image(ASYMMETRIC, exif=exif(orientation)), LIMITS) == ASYMMETRIC).all()


@pytest.mark.parametrize("block", [b"Exif\x00\x00garbage", b"Exif\x00\x00II*\x00\xff\xff\xff\xff", b"\x00" * 40])
def test_a_damaged_exif_block_does_not_spoil_the_picture(block: bytes) -> None:
    assert decode_image(encode_image(ASYMMETRIC, "JPEG", exif=block), LIMITS).shape == (2, 3, 3)


def block_of(tag: int, kind: int, count: int, value: int, order: str = "<") -> bytes:
    """Write an EXIF block of one entry."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    content = struct.pack(order + {3: "HH", 4: "I", 1: "BBBB"}[kind], *(value, 0, 0, 0)[: {3: 2, 4: 1, 1: 4}[kind]])
    return b"Exif\0\0" + head + struct.pack(order + "IHHHI", 8, 1, tag, kind, count) + content + bytes(4)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    ("entry", "is_turned"),
    [((3, 1), True), ((4, 1), False), ((1, 1), False), ((3, 2), False), ((3, 0), False)],
    ids=["SHORT", "LONG", "BYTE", "two SHORTs", "no SHORT"],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_an_orientation_counts_as_one_short(kind: str, entry: tuple[int, int], is_turned: bool, order: str) -> None:
    encoded = encode_image(noise_image(0, (8, 24)), kind, exif=block_of(EXIF_ORIENTATION, *entry, 6, order))
    assert decode_image(encoded, LIMITS).shape == ((24, 8, 3) if is_turned else (8, 24, 3))


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF"])
def test_an_orientation_of_xmp_does_not_count(kind: str) -> None:
    options = {"tiffinfo": {700: XMP}} if kind == "TIFF" else {"xmp": XMP}
    encoded = encode_image(noise_image(0, (8, 24)), kind, **options)
    assert XMP in encoded
    assert decode_image(encoded, LIMITS).shape == (8, 24, 3)


def test_an_exif_block_in_the_text_of_a_png_does_not_count() -> None:
    block = block_of(EXIF_ORIENTATION, 3, 1, 6)
    text = PIL.PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(block)}\n{block.hex()}\n")
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    assert decode_image(encode_image(noise_image(0, (8, 24)), pnginfo=text), LIMITS).shape == (8, 24, 3)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_pictures_of_phones_are_read(kind: str, heif: None) -> None:
    photo = generate_image(1, (96, 128))
    decoded = decode_image(encode_image(photo, kind, quality=95), WITH_HEIF)
    assert np.abs(decoded.astype(int) - photo).mean() <= 3  # both are lossy


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_pictures_of_phones_may_be_transparent(kind: str, heif: None) -> None:
    clear = PIL.Image.new("RGBA", (32, 32), (200, 0, 0, 0))
    assert (decode_image(encode_image(clear, kind, quality=95), WITH_HEIF) >= 254).all()


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP", "AVIF"])
def test_of_an_animation_the_first_frame_is_served(kind: str) -> None:
    red, blue = PIL.Image.new("RGB", (4, 4), (255, 0, 0)), PIL.Image.new("RGB", (4, 4), (0, 0, 255))
    best: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100}}
    encoded = encode_image(red, kind, save_all=True, append_images=[blue] * 3, **best.get(kind, {}))
    assert np.abs(decode_image(encoded, LIMITS)[0, 0].astype(int) - [255, 0, 0]).max() <= (2 if kind == "AVIF" else 0)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 16384), (16384, 1)])
def test_extreme_shapes_are_decoded(size_hw: tuple[int, int]) -> None:
    assert decode_image(encode_image(noise_image(0, size_hw)), LIMITS).shape == (*size_hw, 3)


def truncated(kind: str) -> bytes:
    whole = encode_image(noise_image(1, (64, 64)), kind)
    return whole[: len(whole) // 2]


@pytest.mark.parametrize(
    "encoded",
    [b"", b"\x00", b"garbage" * 100, b"<html>", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff", b"II*\x00", b"BM",
     *map(truncated, LIMITS.formats)],
    ids=["empty", "one byte", "garbage", "html", "png signature", "gif signature", "jpeg signature", "tiff signature",
         "bmp signature", *(f"cut {kind}" for kind in LIMITS.formats)],
)  # fmt: skip
def test_what_is_not_a_whole_image_is_a_decode_error(encoded: bytes) -> None:
    with pytest.raises(ImageDecodeError):
        decode_image(encoded, LIMITS)


@pytest.mark.parametrize(("kind", "end"), [("JPEG", 2), ("PNG", 20)])
def test_a_file_without_its_last_bytes_and_with_all_its_pixels_is_served(kind: str, end: int) -> None:
    """tests/lab/hostile/test_cut_files.py has every kind of them."""
    encoded = encode_image(noise_image(1, (20, 30)), kind)
    assert (decode_image(encoded[:-end], LIMITS) == decode_image(encoded, LIMITS)).all()


def tiff_with_an_endless_offset() -> bytes:
    encoded = bytearray(encode_image(noise_image(0, (8, 8)), "TIFF"))
    strip_offsets = encoded.index(struct.pack("<HHI", 273, 4, 1))
    encoded[strip_offsets : strip_offsets + 12] = struct.pack("<HHII", 273, 16, 1, len(encoded))
    return bytes(encoded) + b"\xff" * 8


def test_an_offset_that_no_integer_holds_is_a_decode_error() -> None:
    with pytest.raises(ImageDecodeError):
        decode_image(tiff_with_an_endless_offset(), LIMITS)


@pytest.mark.parametrize(
    "encoded",
    [b"8BPS" + b"\x00" * 40, b"%PDF-1.7", b"%!PS-Adobe", encode_image(noise_image(0, (16, 16)), "ICO"),
     b'<svg xmlns="http://www.w3.org/2000/svg"/>', b'<?xml version="1.0"?><svg/>', b"\xff\x0a\x00\x00",
     b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\x00\x00\x00\x1cftypheic", b"\x00\x00\x00\x1cftypisom",
     b"PK\x03\x04"],
    ids=["psd", "pdf", "ps", "ico", "svg", "xml", "jxl", "jp2", "heic", "mp4", "zip"],
)  # fmt: skip
def test_a_known_format_that_is_not_served_is_415_and_the_message_says_what_is(encoded: bytes) -> None:
    with pytest.raises(UnsupportedFormatError, match="JPEG, PNG, WEBP, BMP, TIFF, GIF"):
        decode_image(encoded, LIMITS)


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "PNG"])
def test_a_served_format_that_an_archive_does_not_allow_is_415(kind: str, heif: None) -> None:
    with pytest.raises(UnsupportedFormatError, match="PNG"):
        decode_image(encode_image(ASYMMETRIC, kind), ImageLimits(formats=("PNG",)))


HEIC = b"\x00\x00\x00\x1cftypheic"


def decodes_or_refuses(encoded: bytes) -> None:
    try:
        decoded = decode_image(encoded, WITH_HEIF.model_copy(update={"max_pixels": 1_000_000}))
    except RequestError:
        return
    assert decoded.dtype == np.uint8
    assert decoded.ndim == 3
    assert decoded.shape[2] == 3


@pytest.mark.usefixtures("heif")
@settings(max_examples=examples(200), deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from(
        [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"MM\x00*", b"\0\0\0\x1cftypheic"]
    ),
)
def test_any_bytes_are_an_image_or_a_request_error(tail: bytes, signature: bytes) -> None:
    decodes_or_refuses(signature + tail)


@pytest.mark.parametrize("kind", FORMATS)
def test_an_image_with_flipped_bits_is_an_image_or_a_request_error(kind: str, heif: None) -> None:
    whole = encode_image(noise_image(2, (24, 24)), kind, exif=exif(6), icc_profile=SWAPPED)
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


def test_a_jpeg_with_more_pictures_behind_it_shrinks() -> None:
    first, second = (PIL.Image.fromarray(noise_image(seed, size_hw=(160, 80))) for seed in range(2))
    encoded = encode_image(first, "MPO", save_all=True, append_images=[second])
    assert decode_image(encoded, LIMITS, shrink=partial(shrink_jpeg, spare=spare_of(20))).shape[:2] == (20, 10)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_only_jpegs_shrink(kind: str) -> None:
    encoded = encode_image(noise_image(0, size_hw=(160, 80)), kind)
    assert decode_image(encoded, LIMITS, shrink=partial(shrink_jpeg, spare=spare_of(10))).shape[:2] == (160, 80)


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


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_large_picture_of_one_colour_is_served(kind: str) -> None:
    """2000 pixels a byte are more than these formats can reach with 8 bits a pixel."""
    encoded = encode_image(PIL.Image.new("L", (4000, 2600), 200), kind, optimize=True)
    assert decode_image(encoded, LIMITS).shape == (2600, 4000, 3)


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_tags_of_a_bigtiff_are_counted(order: str) -> None:
    head = (b"II+\0" if order == "<" else b"MM\0+") + struct.pack(order + "HHQQ", 8, 0, 16, 1)
    encoded = head + struct.pack(order + "HHQQ", 274, 3, 200_000, 44) + bytes(400_008)
    with pytest.raises(ImageDecodeError, match="200,000 values; the limit is 100,000"):
        decode_image(encoded, LIMITS)
    with pytest.raises(ImageDecodeError, match="70,000 TIFF tags"):
        decode_image(head[:-8] + struct.pack(order + "Q", 70_000) + bytes(100), LIMITS)
