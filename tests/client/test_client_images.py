"""What is sent for each kind of input."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from vision_client.errors import ImageInputError
from vision_client.images import encode_image, is_image

PIXELS = np.random.default_rng(0).integers(0, 256, (31, 17, 3), dtype=np.uint8)


def decode(encoded: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(PIL.Image.open(io.BytesIO(encoded)))


def test_files_and_bytes_are_sent_as_they_are(tmp_path: Path) -> None:
    content = b"whatever it is, the server reads it"
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with path.open("rb") as file:
        inputs = [path, str(path), content, bytearray(content), memoryview(content), file, io.BytesIO(content)]
        assert [encode_image(value) for value in inputs] == [content] * len(inputs)


@pytest.mark.parametrize(
    "array",
    [PIXELS, PIXELS[:1, :1], PIXELS[:, ::-1, ::-1], np.asfortranarray(PIXELS)],
    ids=["plain", "one pixel", "a view with negative strides", "column order"],
)
def test_an_array_arrives_pixel_by_pixel(array: np.ndarray[Any, Any]) -> None:
    encoded = encode_image(array)
    assert PIL.Image.open(io.BytesIO(encoded)).mode == "RGB"
    assert np.array_equal(decode(encoded), array)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_a_picture_arrives_pixel_by_pixel(mode: str) -> None:
    picture = PIL.Image.fromarray(PIXELS).convert(mode)
    arrived = PIL.Image.open(io.BytesIO(encode_image(picture)))
    assert arrived.mode == mode
    assert np.array_equal(np.asarray(arrived.convert("RGBA")), np.asarray(picture.convert("RGBA")))


@pytest.mark.parametrize("mode", ["CMYK", "LAB", "I", "F"])
def test_colours_that_png_cannot_hold_are_left_to_the_server(mode: str) -> None:
    picture = PIL.Image.fromarray(PIXELS).convert("L" if mode in "IF" else "RGB")
    picture = picture.convert(mode) if mode != "LAB" else PIL.Image.merge(mode, picture.split())
    arrived = PIL.Image.open(io.BytesIO(encode_image(picture)))
    assert arrived.mode == mode
    assert np.array_equal(np.asarray(arrived), np.asarray(picture))


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "PA", "RGBa", "RGBX"])
def test_what_no_file_holds_arrives_as_rgb(mode: str) -> None:
    picture = PIL.Image.fromarray(PIXELS).convert("RGBA").convert(mode)
    assert np.array_equal(decode(encode_image(picture))[..., :3], np.asarray(picture.convert("RGBA"))[..., :3])


def test_a_colour_profile_goes_along() -> None:
    picture = PIL.Image.fromarray(PIXELS)
    picture.info["icc_profile"] = b"a profile"
    assert PIL.Image.open(io.BytesIO(encode_image(picture))).info["icc_profile"] == b"a profile"


def test_sixteen_bits_stay_sixteen() -> None:
    picture = PIL.Image.fromarray(np.arange(0, 60000, 1000, dtype=np.uint16).reshape(6, 10))
    assert np.array_equal(decode(encode_image(picture)), np.asarray(picture))


def test_a_picture_keeps_its_orientation_and_nothing_else_of_its_exif() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    buffer = io.BytesIO()
    PIL.Image.fromarray(PIXELS).save(buffer, "JPEG", exif=exif)
    arrived = PIL.Image.open(io.BytesIO(encode_image(PIL.Image.open(buffer))))
    assert dict(arrived.getexif()) == {0x0112: 6}


BAD_INPUTS: dict[str, tuple[Any, str]] = {
    "float array": (np.zeros((4, 4, 3)), r"expected a uint8 array .* got ndarray float64 \(4, 4, 3\)"),
    "gray array": (np.zeros((4, 4), np.uint8), r"got ndarray uint8 \(4, 4\)"),
    "channels first": (np.zeros((3, 4, 4), np.uint8), r"\(3, 4, 4\)"),
    "a batch": (np.zeros((2, 4, 4, 3), np.uint8), r"\(2, 4, 4, 3\)"),
    "empty array": (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
    "text file": (io.StringIO("text"), "open it with mode 'rb'"),
    "nothing": (None, "got NoneType"),
    "zero byte": ("a\0b", "cannot be read"),
}


@pytest.mark.parametrize(("value", "message"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_what_is_no_image_is_refused_with_what_was_found(value: Any, message: str) -> None:
    with pytest.raises(ImageInputError, match=message):
        encode_image(value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageInputError, match=r"none\.jpg"):
        encode_image(tmp_path / "none.jpg")
    with pytest.raises(ImageInputError, match="is a folder; give the images in it"):
        encode_image(tmp_path)
    written = (tmp_path / "photo.jpg").open("wb")
    written.close()
    with pytest.raises(ImageInputError, match="cannot be read"):
        encode_image(written)


def test_a_damaged_picture_that_pillow_reads_only_now_is_refused() -> None:
    buffer = io.BytesIO()
    PIL.Image.fromarray(PIXELS).save(buffer, "JPEG")
    with pytest.raises(ImageInputError, match="cannot be read"):
        encode_image(PIL.Image.open(io.BytesIO(buffer.getvalue()[:-100])))


@pytest.mark.parametrize("value", ["photo.jpg", b"image", io.BytesIO(), PIXELS, PIL.Image.new("L", (1, 1))], ids=type)
def test_one_image_is_not_taken_for_several(value: object) -> None:
    assert is_image(value)


@pytest.mark.parametrize("value", [[], ["photo.jpg"], (b"image",), iter([PIXELS]), {"photo.jpg"}], ids=type)
def test_several_images_are_not_taken_for_one(value: object) -> None:
    assert not is_image(value)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_a_path_that_may_never_end_is_refused(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "x.png")
    with pytest.raises(ImageInputError, match=r"x\.png is a pipe or device"):
        encode_image(tmp_path / "x.png")
