"""What the error of a picture says that cannot be opened: its format, and its kind."""

import struct
from collections.abc import Sequence
from typing import Any

import pytest
from fakes import encode_image, noise_image

from lab.hostile.picture_files import chunk, write_tiff, write_tiff_tag
from vision_serving.config import ImageLimits
from vision_serving.errors import ImageDecodeError, UnsupportedFormatError
from vision_serving.pictures.decoding import decode_image

LIMITS = ImageLimits()
NOISE = noise_image(0, (16, 16))


def box_of(brand: bytes, *compatible: bytes) -> bytes:
    brands = brand + bytes(4) + b"".join(compatible)
    return struct.pack(">I4s", 8 + len(brands), b"ftyp") + brands + bytes(40)


@pytest.mark.parametrize(
    ("encoded", "name"),
    [
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "JPEG XL"),
        (b"\xff\x0a" + bytes(40), "JPEG XL"),
        (b"\xff\x4f\xff\x51" + bytes(40), "JPEG 2000"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "JPEG 2000"),
        (b"\0\0\2\0\1\0" + bytes(40), "CUR"),
        *(
            (box_of(brand), "HEIF")
            for brand in (b"hevx", b"heim", b"mif2", b"avci", b"vvic", b"j2ki", b"jpeg", b"unif")
        ),
        (box_of(b"mp42", b"isom", b"mif1", b"heic"), "HEIF"),
        (box_of(b"miaf"), "HEIF"),
        (box_of(b"jp2 ", b"jp2 "), "JPEG 2000"),
        (box_of(b"jxl "), "JPEG XL"),
        (box_of(b"crx ", b"isom"), "Canon CR3"),
        (box_of(b"mp42", b"isom"), "MP4"),
    ],
)
def test_a_format_that_is_not_served_is_named(encoded: bytes, name: str) -> None:
    with pytest.raises(UnsupportedFormatError, match=f"this looks like {name}, which is not served"):
        decode_image(encoded, LIMITS)


def test_an_avif_is_one_whatever_its_first_brand() -> None:
    encoded = encode_image(NOISE, "AVIF").replace(b"ftypavif", b"ftypmif1")
    assert decode_image(encoded, LIMITS).shape == (16, 16, 3)
    with pytest.raises(UnsupportedFormatError, match="this looks like AVIF"):
        decode_image(encoded, ImageLimits(formats=("PNG",)))


def test_an_uncompressed_tga_is_no_cursor() -> None:
    with pytest.raises(ImageDecodeError, match="not an image this server can read"):
        decode_image(b"\0\0\2" + bytes(9) + struct.pack("<HHBB", 4, 4, 24, 0) + bytes(48), LIMITS)


@pytest.mark.parametrize("kind", ImageLimits().formats)
def test_a_served_format_that_is_cut_off_is_no_other_kind(kind: str) -> None:
    encoded = encode_image(NOISE, kind)
    for length in (16, 24):
        with pytest.raises(ImageDecodeError):
            decode_image(encoded[:length], LIMITS)


TAGS: dict[int, int | Sequence[int]] = {256: 4, 257: 4, 258: 8, 259: 1, 262: 1, 277: 1, 278: 4}
THREE = {258: (8, 8, 8), 277: 3}


@pytest.mark.parametrize(
    ("tags", "kind"),
    [
        ({259: 34712, 262: 2, **THREE}, r"\(RGB\) in 8 \+ 8 \+ 8 bits, compression 34712 \(JPEG 2000\)"),
        ({259: 34661, 258: 1}, r"compression 34661 \(JBIG\)"),
        ({259: 34887}, r"compression 34887 \(LERC\)"),
        ({259: 50002}, r"compression 50002 \(JPEG XL\)"),
        ({259: 50001, 262: 2, **THREE}, r"compression 50001 \(WebP\)"),
        ({259: 4711}, r"compression 4711 \(of another name\)"),
        ({262: 32803}, r"colours of kind 32803 \(colour filter array\)"),
        ({262: 8, **THREE}, r"colours of kind 8 \(CIE L\*a\*b\*\)"),
        ({262: 32845, 259: 34676, 258: (16, 16, 16), 277: 3}, r"\(LogLuv\)"),
        ({258: 7}, "in 7 bits"),
        ({258: (5, 6, 5), 262: 2, 277: 3}, r"in 5 \+ 6 \+ 5 bits"),
        ({258: (12, 12, 12), 262: 2, 277: 3}, r"in 12 \+ 12 \+ 12 bits"),
        ({258: 64}, "in 64 bits"),
    ],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_kind_of_tiff_that_cannot_be_read_is_named(tags: dict[int, Any], kind: str, order: str) -> None:
    with pytest.raises(UnsupportedFormatError, match=f"this TIFF has .*{kind}"):
        decode_image(write_tiff(TAGS | tags, bytes(4 * 4 * 24), order), LIMITS)


def bmp(size: int = 40, bits: int = 24, compression: int = 0, masks: bytes = b"") -> bytes:
    head = struct.pack("<IiiHHIIiiII", size, 4, 4, 1, bits, compression, 64, 0, 0, 0, 0)[:size].ljust(size, b"\0")
    return b"BM" + struct.pack("<IHHI", 200, 0, 0, 14 + size) + head + masks + bytes(200)


@pytest.mark.parametrize(
    ("encoded", "kind"),
    [
        (bmp(compression=4), r"compression 4 \(JPEG\)"),
        (bmp(compression=5), r"compression 5 \(PNG\)"),
        (bmp(compression=11), "compression 11"),
        (bmp(bits=64), "64 bits a pixel"),
        (bmp(bits=2), "2 bits a pixel"),
        (bmp(size=16), "a header of 16 bytes"),
        (bmp(bits=16, compression=3, masks=struct.pack("<3I", 0xF00, 0xF0, 0xF)), "bit fields of an unusual layout"),
    ],
)
def test_a_kind_of_bmp_that_cannot_be_read_is_named(encoded: bytes, kind: str) -> None:
    with pytest.raises(UnsupportedFormatError, match=f"this BMP has {kind}, which is not served"):
        decode_image(encoded, LIMITS)


@pytest.mark.parametrize("kind", ["iovl", "iden", "hvc1", "av02"])
def test_a_kind_of_avif_that_cannot_be_read_is_named(kind: str) -> None:
    encoded = encode_image(NOISE, "AVIF").replace(b"\0\0av01Color", b"\0\0" + kind.encode() + b"Color")
    with pytest.raises(UnsupportedFormatError, match=rf"this AVIF has items of the kinds {kind} \(missing or empty"):
        decode_image(encoded, LIMITS)


def test_kinds_of_an_avif_are_few_and_printable() -> None:
    items = b"".join(b"infe\2" + bytes(7) + kind for kind in (b"a\x1b[m", *(b"zz%02d" % n for n in range(99))))
    encoded = encode_image(NOISE, "AVIF").replace(b"av01", b"hvc1")
    with pytest.raises(UnsupportedFormatError, match=r"of the kinds hvc1, zz00, zz01, zz02, zz03 \(") as caught:
        decode_image(encoded + items + bytes(70_000) + items.replace(b"zz", b"aa"), LIMITS)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", [b"ABCD", b"CgBI", b"A\n\0z"])
@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
def test_a_png_with_an_unknown_critical_chunk_is_refused(kind: bytes, before: bytes) -> None:
    encoded = encode_image(NOISE)
    place = encoded.index(before) - 4
    with pytest.raises(ImageDecodeError) as caught:
        decode_image(encoded[:place] + chunk(kind, b"xy") + encoded[place:], LIMITS)
    assert str(caught.value) == f"the PNG has a chunk {kind.decode()!a}, which no reader may ignore"


def test_a_tiff_whose_directory_is_no_pictures_is_damaged() -> None:
    with pytest.raises(ImageDecodeError, match="this looks like TIFF, but it is damaged or incomplete"):
        decode_image(b"II*\0" + struct.pack("<IHI", 8, 0, 0), LIMITS)


def test_a_tiff_whose_colours_are_a_text_gets_no_longer_an_answer_for_it() -> None:
    encoded = write_tiff_tag(262, 3, 100_000)
    row = encoded.index(struct.pack("<HHI", 262, 3, 100_000))
    as_text = encoded[: row + 2] + struct.pack("<HI", 2, 200_000) + encoded[row + 8 :]
    with pytest.raises(UnsupportedFormatError, match="colours of kind") as raised:
        decode_image(as_text, LIMITS)
    assert len(str(raised.value)) < 300
