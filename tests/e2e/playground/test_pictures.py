"""What the page shows is what the server answers, whatever the picture is."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from e2e.conftest import Service
from e2e.test_requests import OCTETS

from .conftest import CLASSIFIER, DETECTOR, SCENE, SEVEN, Shown, encode

ORIENTATION = 0x0112
QUARTER_TURN = 6  # to be turned clockwise


def turn(image: Image.Image) -> bytes:
    """A picture that lies on its side, and says so."""
    exif = Image.Exif()
    exif[ORIENTATION] = QUARTER_TURN
    return encode(image.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95)


def deepen(image: Image.Image) -> bytes:
    """A gray picture of 16 bits."""
    return encode(Image.fromarray(np.asarray(image.convert("L"), dtype=np.uint16) * 257))


KINDS: dict[str, Callable[[Path], bytes]] = {
    "as it is": lambda path: path.read_bytes(),
    "turned": lambda path: turn(Image.open(path).convert("RGB")),
    "16-bit": lambda path: deepen(Image.open(path)),
    "WebP": lambda path: encode(Image.open(path).convert("RGB"), "WEBP", lossless=True),
    "TIFF, which Chromium cannot show": lambda path: encode(Image.open(path).convert("RGB"), "TIFF"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_boxes_are_those_of_the_answer(kind: str, shown: Shown, service: Service) -> None:
    picture = KINDS[kind](SCENE)
    answer = service.post(DETECTOR, picture, OCTETS).json()
    shown.choose(DETECTOR)
    shown.give(picture)
    assert shown.rows() == [(found["label"], f"{found['score']:.3f}") for found in answer["detections"]]
    if kind.startswith("TIFF"):
        assert shown.page.locator(".overlay .item").count() == 0  # the server has drawn them
    else:
        assert shown.page.locator(".overlay .item").count() == len(answer["detections"]) > 0
        size = answer["image"]
        assert shown.page.locator(".overlay").get_attribute("viewBox") == f"0 0 {size['width']} {size['height']}"
        x, y = answer["detections"][0]["box"][:2]  # the best one is on top
        drawn = shown.page.locator(".overlay .item .edge").last.get_attribute("d")
        assert str(drawn).startswith(f"M{x:.12g} {y:.12g}L")
    if kind.startswith("TIFF"):
        return
    width, height = shown.page.locator(".shown").evaluate("image => [image.naturalWidth, image.naturalHeight]")
    assert (width, height) == (answer["image"]["width"], answer["image"]["height"])
    assert shown.complaints == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_classes_are_those_of_the_answer(kind: str, shown: Shown, service: Service) -> None:
    picture = KINDS[kind](SEVEN)
    answer = service.post(CLASSIFIER, picture, OCTETS).json()
    shown.choose(CLASSIFIER)
    shown.give(picture)
    assert shown.rows() == [(found["label"], f"{found['score']:.3f}") for found in answer["classes"]]
    assert shown.rows()[0][0] == "7"


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "huge": (lambda: encode(Image.new("1", (10_000, 10_000))), "413 PayloadTooLargeError: the image has 10000 x 10000"),
    "broken": (lambda: SCENE.read_bytes()[:400], "400 ImageDecodeError:"),
    "a text": (lambda: b"not an image", "400 ImageDecodeError: not an image this server can read"),
    "a PDF": (lambda: b"%PDF-1.7 ...", "415 UnsupportedFormatError:"),
    "empty": (lambda: b"", "400 "),
}


@pytest.mark.parametrize("model", [DETECTOR, CLASSIFIER])
@pytest.mark.parametrize("kind", REFUSED)
def test_an_error_is_shown_as_it_comes_and_the_next_picture_is_answered(kind: str, model: str, shown: Shown) -> None:
    make, expected = REFUSED[kind]
    shown.choose(model)
    shown.give(make(), "bad.png")
    assert shown.error().startswith(expected)
    assert shown.rows() == []
    shown.give(SCENE.read_bytes(), "scene.jpg")
    assert len(shown.rows()) > 1
    assert shown.page.locator(".error:visible").count() == 0
