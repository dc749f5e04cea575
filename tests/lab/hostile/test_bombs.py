"""Files that would cost far more than they weigh: refused at once, or served at the price of what is seen of them."""

import numpy as np
import PIL.Image
import pytest

from lab.hostile.bombs import BOMBS, MAX_CPU_S, MAX_RISE_MIB, ROW_OF_RUNS, SMALL_GIF, png_with
from lab.hostile.memory import Cost, measure_without_server
from lab.hostile.picture_files import (
    chunk,
    encode_as,
    insert_into_gif,
    insert_into_jpeg,
    jpeg_segment,
    write_black_png,
    write_run_length_bmp,
    write_tiff_tag,
    write_tiled_tiff,
)
from vision_serving.config import ImageLimits
from vision_serving.errors import PayloadTooLargeError
from vision_serving.pictures.decoding import decode_image

LIMITS = ImageLimits()


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cost]:
    """What the decoding of each file took."""
    return measure_without_server({name: bomb.make for name, bomb in BOMBS.items()}, tmp_path_factory.mktemp("bombs"))


@pytest.mark.parametrize("kind", LIMITS.formats)
def test_there_are_files_that_swell_of_each_format(kind: str) -> None:
    assert any(name.startswith(kind.lower()) for name in BOMBS)


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_would_swell_is_refused_at_once_or_only_what_is_seen_is_paid(
    name: str, costs: dict[str, Cost]
) -> None:
    assert costs[name].status == BOMBS[name].status
    assert costs[name].seconds <= MAX_CPU_S
    assert costs[name].rise_mib <= MAX_RISE_MIB


def test_the_pixels_per_byte_are_a_limit_of_the_archive() -> None:
    encoded = write_black_png(3500)
    with pytest.raises(
        PayloadTooLargeError, match=r"3500 x 3500 = 12,250,000 pixels in .* limit is 2,000 pixels a byte"
    ):
        decode_image(encoded, LIMITS)
    assert decode_image(encoded, ImageLimits(max_pixels_per_byte=10_000)).shape == (3500, 3500, 3)


def test_a_tile_may_be_larger_than_its_picture() -> None:
    decoded = decode_image(write_tiled_tiff((10, 10), (256, 256)), LIMITS)
    assert decoded.shape == (10, 10, 3)
    assert not np.any(decoded)


def test_a_picture_with_many_chunks_is_served() -> None:
    encoded = png_with(chunk(b"tEXt", b"a\0b") * 1000)
    assert decode_image(encoded, LIMITS).tolist() == [[[1, 2, 3]]]


JPEG = encode_as(PIL.Image.new("RGB", (8, 8)), "JPEG")
PARTS = {
    "jpeg": insert_into_jpeg(JPEG, jpeg_segment(0xFE, bytes(500)) * 1000),
    "jpeg, EXIF block in 20 segments": insert_into_jpeg(JPEG, jpeg_segment(0xE1, b"Exif\0\0" + bytes(60_000)) * 20),
    "png": png_with(chunk(b"abCd", bytes(100)) * 10_000),
    "gif": insert_into_gif(SMALL_GIF, (b"!\xfe" + (b"\xff" + bytes(255)) * 100 + b"\0") * 100),
    "bmp": write_run_length_bmp((1000, 1000), ROW_OF_RUNS * 1000),
    "tiff": write_tiff_tag(273, 4, 100_000),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_file_of_many_parts_is_served(name: str) -> None:
    assert len(PARTS[name]) > 8000
    assert decode_image(PARTS[name], LIMITS).ndim == 3


def test_a_text_of_a_png_cannot_stand_for_what_the_server_notes_of_it() -> None:
    encoded = png_with(
        chunk(b"tEXt", b"full size\0ab") + chunk(b"tEXt", b"exif\0no") + chunk(b"tEXt", b"icc_profile\0no")
    )
    assert decode_image(encoded, LIMITS).tolist() == [[[1, 2, 3]]]
