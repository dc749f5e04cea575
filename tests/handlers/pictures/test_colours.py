import struct
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
from fakes import WITHOUT_METADATA, encode_image, generate_image
from icc_profiles import P3_PRIMARIES, SRGB_PRIMARIES, SWAPPED, black_ink_profile, gray_profile, rgb_profile

from vision_serving.config import ColourConfig, ImageLimits
from vision_serving.errors import UnsupportedFormatError
from vision_serving.pictures.colours import find_transform
from vision_serving.pictures.decoding import Image, decode_image, shrink_jpeg

LIMITS = ImageLimits()
AS_STORED = ColourConfig(background="none")
ON_BLUE = ColourConfig(background=(0, 0, 255))


def picture(mode: str, *pixels: Any) -> PIL.Image.Image:
    """One row."""
    made = PIL.Image.new(mode, (len(pixels), 1))
    made.putdata(pixels)
    return made


def with_palette(*colours: tuple[int, int, int]) -> PIL.Image.Image:
    made = picture("P", *range(len(colours)))
    made.putpalette([level for colour in colours for level in colour])
    return made


def decode_row(encoded: bytes, colours: ColourConfig | None = None) -> list[list[int]]:
    decoded = decode_image(encoded, LIMITS, colours)
    assert decoded.dtype == np.uint8
    (row,) = decoded.tolist()
    return [list(pixel) for pixel in row]


def difference(decoded: Image, expected: Any) -> int:
    return int(np.abs(decoded.astype(int) - expected).max())


DEEP = 0x1234, 0x8000, 0xFFFF  # whose high bytes are
HIGH = 0x12, 0x80, 0xFF
DEEP_GRAY = PIL.Image.fromarray(np.array([DEEP], dtype=np.uint16))
GRAYS = [[level] * 3 for level in HIGH]


@pytest.mark.parametrize(
    ("encoded", "pixels"),
    [
        (encode_image(picture("L", 0, 100, 255)), [[0] * 3, [100] * 3, [255] * 3]),
        (encode_image(picture("1", 0, 255)), [[0] * 3, [255] * 3]),
        (encode_image(with_palette((9, 8, 7), (200, 100, 50))), [[9, 8, 7], [200, 100, 50]]),
        (encode_image(with_palette((9, 8, 7), (200, 100, 50)), "GIF"), [[9, 8, 7], [200, 100, 50]]),
        (encode_image(picture("RGB", (5, 6, 7)), "BMP"), [[5, 6, 7]]),
        (encode_image(picture("CMYK", (0, 255, 255, 0), (0, 0, 0, 255)), "TIFF"), [[255, 0, 0], [0, 0, 0]]),
        (encode_image(DEEP_GRAY), GRAYS),
        (encode_image(DEEP_GRAY, "TIFF"), GRAYS),
    ],
    ids=["gray", "1 bit", "palette", "gif", "bmp", "cmyk tiff", "16-bit gray png", "16-bit gray tiff"],
)
def test_every_colour_mode_becomes_rgb(encoded: bytes, pixels: list[list[int]]) -> None:
    assert decode_row(encoded) == pixels


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(UnsupportedFormatError, match="white is not known"):
        decode_image(encode_image(picture("F", 0.5), "TIFF"), LIMITS)


CLEAR, HALF, SOLID = (10, 20, 30, 0), (100, 0, 0, 128), (1, 2, 3, 255)
SEE_THROUGH = picture("RGBA", CLEAR, HALF, SOLID)


def half_over(level: int, behind: int) -> int:
    return round((level * 128 + behind * 127) / 255)


@pytest.mark.parametrize(
    ("background", "pixels"),
    [
        ((255, 255, 255), [[255, 255, 255], [half_over(100, 255), 127, 127], [1, 2, 3]]),
        ((0, 0, 255), [[0, 0, 255], [half_over(100, 0), 0, 127], [1, 2, 3]]),
        ("none", [[10, 20, 30], [100, 0, 0], [1, 2, 3]]),
    ],
    ids=["white", "blue", "none"],
)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_the_background_is_seen_through_transparent_pixels(kind: str, background: Any, pixels: list[list[int]]) -> None:
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    assert decode_row(encode_image(SEE_THROUGH, kind, **options), ColourConfig(background=background)) == pixels


def test_the_background_is_white_unless_the_archive_says_otherwise() -> None:
    assert decode_row(encode_image(picture("RGBA", CLEAR))) == [[255, 255, 255]]


def test_without_a_background_pixels_are_those_of_convert() -> None:
    noise = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 4), dtype=np.uint8))
    for mode in ("RGBA", "LA", "P"):
        encoded = encode_image(noise.convert(mode))
        assert (decode_image(encoded, LIMITS, AS_STORED) == np.asarray(noise.convert(mode).convert("RGB"))).all()


BEHIND = [0, 0, 255]


@pytest.mark.parametrize(
    ("encoded", "pixels"),
    [
        pytest.param(encode_image(picture("LA", (50, 0), (60, 255))), [BEHIND, [60] * 3], id="gray + alpha"),
        pytest.param(
            encode_image(with_palette((9, 8, 7), (1, 2, 3)), transparency=0), [BEHIND, [1, 2, 3]], id="palette"
        ),
        pytest.param(
            encode_image(with_palette((9, 8, 7), (1, 2, 3)), transparency=b"\xff\x00"),
            [[9, 8, 7], BEHIND],
            id="palette of alphas",
        ),
        pytest.param(
            encode_image(with_palette((9, 8, 7), (1, 2, 3)), "GIF", transparency=1), [[9, 8, 7], BEHIND], id="gif"
        ),
        pytest.param(
            encode_image(picture("RGB", (5, 6, 7), (5, 6, 8)), transparency=(5, 6, 7)),
            [BEHIND, [5, 6, 8]],
            id="rgb with a key",
        ),
        pytest.param(encode_image(picture("L", 5, 6), transparency=5), [BEHIND, [6] * 3], id="gray with a key"),
        pytest.param(encode_image(picture("1", 0, 255), transparency=0), [BEHIND, [255] * 3], id="1 bit with a key"),
    ],
)
def test_every_kind_of_transparency_shows_the_background(encoded: bytes, pixels: list[list[int]]) -> None:
    assert decode_row(encoded, ON_BLUE) == pixels


def test_a_gif_is_clear_where_its_frame_does_not_cover_it() -> None:
    """Not of the first colour of its palette, nor of the colour that it calls its background."""
    picture = PIL.Image.new("P", (2, 1), 1)
    picture.putpalette([255, 0, 0, 0, 255, 0])
    encoded = bytearray(encode_image(picture, "GIF"))
    place = encoded.index(b",", 13)
    encoded[6:10] = struct.pack("<HH", 4, 3)
    encoded[place + 1 : place + 5] = struct.pack("<HH", 1, 1)
    decoded = decode_image(bytes(encoded), LIMITS, ON_BLUE).copy()
    assert decoded.shape == (3, 4, 3)
    assert decoded[1, 1:3].tolist() == [[0, 255, 0]] * 2
    decoded[1, 1:3] = BEHIND
    assert (decoded == BEHIND).all()


PHOTO = generate_image(3, (64, 96))
LOSSY = 12  # levels: JPEG of quality 95 without subsampling stays within it on this picture


def stored_as_ycck(cmyk: PIL.Image.Image) -> bytes:
    """A JPEG as Photoshop writes it: inverted, its colours as luma and chroma, and the marker that says so."""
    *colours, black = cmyk.split()
    luma_and_chroma = PIL.Image.merge("RGB", colours).convert("YCbCr")
    channels = [channel.point(lambda level: 255 - level) for channel in luma_and_chroma.split()]  # Pillow inverts again
    encoded = encode_image(PIL.Image.merge("CMYK", (*channels, black)), "JPEG", quality=95)
    adobe = encoded.index(b"Adobe")
    return encoded[: adobe + 11] + b"\x02" + encoded[adobe + 12 :]


@pytest.mark.parametrize("kind", ["CMYK", "YCCK"])
def test_a_jpeg_for_printing_has_the_colours_of_the_original(kind: str) -> None:
    cmyk = PIL.Image.fromarray(PHOTO).convert("CMYK")
    encoded = encode_image(cmyk, "JPEG", quality=95) if kind == "CMYK" else stored_as_ycck(cmyk)
    assert difference(decode_image(encoded, LIMITS), PHOTO) <= LOSSY


def test_black_ink_darkens_a_jpeg_for_printing() -> None:
    encoded = encode_image(PIL.Image.new("CMYK", (16, 16), (0, 0, 0, 128)), "JPEG", quality=95)
    assert difference(decode_image(encoded, LIMITS), 127) <= 2


def test_a_progressive_jpeg_has_the_pixels_of_the_sequential_one() -> None:
    decoded = [decode_image(encode_image(PHOTO, "JPEG", progressive=value), LIMITS) for value in (False, True)]
    assert (decoded[0] == decoded[1]).all()


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_smaller_jpeg_has_the_colours_of_the_whole_one(mode: str) -> None:
    encoded = encode_image(PIL.Image.new("RGB", (160, 160), (200, 200, 200)).convert(mode), "JPEG", quality=95)
    whole = decode_image(encoded, LIMITS)
    small = decode_image(encoded, LIMITS, shrink=partial(shrink_jpeg, spare=lambda size_hw: 8))
    assert small.shape == (20, 20, 3)
    assert difference(small[10, 10], whole[80, 80]) <= 2


def through_profile(pixels: Image, primaries: Any, gamma: float) -> Image:
    """What the standards say: to light, to XYZ, to light of sRGB, to sRGB."""
    light = (pixels / 255.0) ** gamma @ np.array(primaries) @ np.linalg.inv(np.array(SRGB_PRIMARIES))
    light = light.clip(0, 1)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    rounded: Image = (encoded * 255).round().astype(np.uint8)
    return rounded


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_a_picture_in_display_p3_is_seen_in_srgb(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    encoded = encode_image(PHOTO, kind, icc_profile=rgb_profile(P3_PRIMARIES), **options)
    decoded = decode_image(encoded, LIMITS)
    assert difference(decoded, PHOTO) > 20
    assert difference(decoded, through_profile(PHOTO, P3_PRIMARIES, 2.2)) <= 2  # rounding of a table of 8 bits


@pytest.mark.parametrize("kind", [kind for kind in LIMITS.formats if kind not in WITHOUT_METADATA])
def test_a_picture_follows_its_profile_in_every_format_that_has_one(kind: str) -> None:
    encoded = encode_image(PIL.Image.new("RGB", (16, 16), (250, 5, 5)), kind, icc_profile=SWAPPED)
    assert difference(decode_image(encoded, LIMITS)[8, 8], [5, 250, 5]) <= 8


@pytest.mark.parametrize(
    ("encoded", "pixels"),
    [
        (encode_image(with_palette((255, 0, 0), (0, 255, 0)), icc_profile=SWAPPED), [[0, 255, 0], [255, 0, 0]]),
        (encode_image(picture("L", 0, 255), icc_profile=SWAPPED), [[0] * 3, [255] * 3]),
        (encode_image(picture("RGBA", (255, 0, 0, 255), (255, 0, 0, 0)), icc_profile=SWAPPED), [[0, 255, 0], BEHIND]),
        (encode_image(picture("RGBA", (255, 0, 0, 128)), icc_profile=SWAPPED), [[0, 128, 127]]),
        (encode_image(with_palette((255, 0, 0), (9, 9, 9)), icc_profile=SWAPPED, transparency=1),
         [[0, 255, 0], BEHIND]),
        (encode_image(picture("L", 0, 128, 255), icc_profile=gray_profile(1.0)), [[0] * 3, [188] * 3, [255] * 3]),
        (encode_image(picture("LA", (128, 255), (9, 0)), icc_profile=gray_profile(1.0)), [[188] * 3, BEHIND]),
        (encode_image(DEEP_GRAY, "TIFF", icc_profile=gray_profile(1.0)), [[75] * 3, [188] * 3, [255] * 3]),
        (encode_image(picture("CMYK", (0, 0, 0, 0), (255, 0, 0, 0)), "TIFF", icc_profile=black_ink_profile()),
         [[255] * 3, [0] * 3]),
    ],
    ids=["palette", "gray of an rgb profile", "rgba", "half transparent", "transparent palette", "gray", "gray + alpha",
         "16-bit gray", "cmyk"],
)  # fmt: skip
def test_profiles_of_all_kinds_are_followed(encoded: bytes, pixels: list[list[int]]) -> None:
    assert difference(decode_image(encoded, LIMITS, ON_BLUE)[0], pixels) <= 1


def test_a_cmyk_jpeg_follows_its_profile() -> None:
    cyan = PIL.Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    decoded = decode_image(encode_image(cyan, "JPEG", quality=95, icc_profile=black_ink_profile()), LIMITS)
    assert difference(decoded, 0) <= 4


SRGB = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize(
    ("mode", "pixel", "profile"),
    [
        ("RGB", (200, 100, 50), SRGB),
        ("RGB", (200, 100, 50), b"not a profile"),
        ("RGB", (200, 100, 50), SWAPPED[:-60]),
        ("RGB", (200, 100, 50), SWAPPED + bytes(5_000_000)),
        ("RGB", (200, 100, 50), gray_profile(1.0)),
        ("RGB", (200, 100, 50), black_ink_profile()),
        ("L", 100, black_ink_profile()),
        ("CMYK", (55, 155, 205, 0), SWAPPED),
    ],
    ids=["srgb", "garbage", "cut off", "huge", "gray for rgb", "cmyk for rgb", "cmyk for gray", "rgb for cmyk"],
)
def test_a_profile_that_is_srgb_or_broken_or_for_other_pixels_changes_nothing(
    mode: str, pixel: Any, profile: bytes
) -> None:
    made = picture(mode, pixel)
    expected = [list(made.convert("RGB").getpixel((0, 0)))]  # type: ignore[arg-type]
    assert decode_row(encode_image(made, "TIFF", icc_profile=profile)) == expected


def test_profiles_can_be_ignored() -> None:
    encoded = encode_image(picture("RGB", (255, 0, 0)), icc_profile=SWAPPED)
    assert decode_row(encoded, ColourConfig(icc_profiles="ignore")) == [[255, 0, 0]]


def test_a_profile_is_read_once_and_used_by_all_threads() -> None:
    profile = rgb_profile(P3_PRIMARIES, gamma=1.9)
    encoded = [encode_image(generate_image(seed, (64, 96)), icc_profile=profile) for seed in range(4)]
    alone = [decode_image(data, LIMITS) for data in encoded]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda data: decode_image(data, LIMITS), encoded * 16))
    assert all((found == alone[number % 4]).all() for number, found in enumerate(together))
    assert find_transform(profile) is find_transform(bytes(bytearray(profile)))
