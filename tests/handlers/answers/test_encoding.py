"""Answers as pictures, through the handler and TorchServe's own context."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import PIL.Image
import pytest
from conftest import MakeHandler
from fakes import BLUE, POISON, RED, encode_image, new_context, noise_image, png, solid_image

from vision_serving.answers import encoding
from vision_serving.answers.drawing import class_colour, draw_prediction, open_picture
from vision_serving.answers.encoding import options_for_drawing
from vision_serving.config import ImageLimits
from vision_serving.options import ClassificationOptions, DetectionOptions, MaskOptions
from vision_serving.predictions import Detections, ImageSize
from vision_serving.worker.service import TorchServeHandler

PNG, JPEG, JSON = "image/png", "image/jpeg", "application/json"
SIGNATURES = {PNG: b"\x89PNG", JPEG: b"\xff\xd8\xff", JSON: b"{"}

Answer = tuple[int, str, bytes]


def ask(handler: TorchServeHandler, *requests: tuple[bytes, str], **headers: Any) -> list[Answer]:
    """(status, content type, body) of raw bodies in one batch, each with its Accept header."""
    return handle(handler, [({"body": body}, {"Accept": accept, **headers}) for body, accept in requests])


def handle(handler: TorchServeHandler, requests: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[Answer]:
    rows, headers = zip(*requests, strict=True)
    context = new_context(Path(), headers)
    bodies = handler.handle(rows, context)
    return [
        (context.get_response_status(index)[0], context.get_response_headers(index)["content-type"], body)
        for index, body in enumerate(bodies)
    ]


def load_picture(body: bytes) -> PIL.Image.Image:
    picture = PIL.Image.open(io.BytesIO(body))
    picture.load()
    return picture


@pytest.mark.parametrize("task", ["classification", "detection"])
@pytest.mark.parametrize("media_type", [PNG, JPEG])
def test_a_picture_is_given_to_who_asks_for_it(make_handler: MakeHandler, task: str, media_type: str) -> None:
    [(status, content_type, body)] = ask(make_handler(task), (png(RED, (400, 600)), media_type))
    assert (status, content_type) == (200, media_type)
    picture = load_picture(body)
    assert picture.get_format_mimetype() == media_type  # type: ignore[attr-defined]
    assert (picture.width, picture.mode) == (600, "RGB")
    assert np.asarray(picture)[200, 400] == pytest.approx(RED, abs=6)


@pytest.mark.parametrize(("media_type", "tolerance"), [(PNG, 0), (JPEG, 60)])
def test_the_box_has_the_colour_of_its_class(make_handler: MakeHandler, media_type: str, tolerance: int) -> None:
    """The detector finds `red` in the left half. JPEG blurs a line of two pixels."""
    [(_, _, body)] = ask(make_handler("detection"), (png(RED, (400, 600)), media_type))
    found = np.asarray(load_picture(body)).astype(int)
    assert found[200, 299] == pytest.approx(class_colour(0), abs=tolerance)


def test_each_request_of_a_batch_gets_its_own_media_type(make_handler: MakeHandler) -> None:
    good = png(RED)
    requests = [
        (good, PNG), (good, JSON), (b"garbage", PNG), (good, JPEG), (png(POISON), JPEG), (good, "*/*"), (good, ""),
        (good, "text/html"), (good, "image/png;q=0.1, application/json;q=0.2"),
    ]  # fmt: skip
    answers = ask(make_handler("detection"), *requests)
    assert [answer[:2] for answer in answers] == [
        (200, PNG), (200, JSON), (400, JSON), (200, JPEG), (500, JSON), (200, JSON), (200, JSON), (200, JSON),
        (200, JSON),
    ]  # fmt: skip
    assert all(body.startswith(SIGNATURES[content_type]) for _, content_type, body in answers)


def test_a_request_without_the_header_is_answered_in_json(make_handler: MakeHandler) -> None:
    [(status, content_type, body)] = handle(make_handler("classification"), [({"body": png(RED)}, {})])
    assert (status, content_type, list(orjson.loads(body))) == (200, JSON, ["classes"])


def test_options_hold_for_pictures_too(make_handler: MakeHandler) -> None:
    handler = make_handler("classification")
    heights = [
        load_picture(ask(handler, (png(RED), PNG), **{"X-Inference-Options": f"top_k={count}"})[0][2]).height
        for count in (1, 3)
    ]
    assert heights[0] < heights[1]
    [(status, content_type, body)] = ask(handler, (png(RED), PNG), **{"X-Inference-Options": "nonsense=1"})
    assert (status, content_type, orjson.loads(body)["type"]) == (422, JSON, "InvalidOptionError")


def multipart(*images: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    names = [f"image{number}" for number in range(len(images))]
    parts = {name: {"content-type": "image/png"} for name in names}
    return dict(zip(names, images, strict=True)), {"content-type": "multipart/form-data", "accept": PNG, **parts}


def test_one_image_in_a_form_gets_its_picture_and_several_are_refused(make_handler: MakeHandler) -> None:
    alone, several = handle(make_handler("classification"), [multipart(png(RED)), multipart(png(RED), png(BLUE))])
    assert alone[:2] == (200, PNG)
    assert several[:2] == (406, JSON)
    assert orjson.loads(several[2]) == {
        "code": 406,
        "type": "NotAcceptableError",
        "message": "image/png is an answer to one image, and the request holds 2; send them one by one, or accept "
        "application/json",
    }


def test_the_picture_is_upright(make_handler: MakeHandler) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    sideways = encode_image(solid_image(RED, (400, 600)), "JPEG", exif=exif)
    [(_, _, body)] = ask(make_handler("detection"), (sideways, PNG))
    picture = load_picture(body)
    assert picture.size == (400, 600)
    assert picture.getpixel((199, 300)) == class_colour(0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_large_picture_is_drawn_smaller_and_its_boxes_with_it(make_handler: MakeHandler, kind: str) -> None:
    large = encode_image(solid_image(RED, (2000, 4000)), kind)
    [(_, _, body)] = ask(make_handler("detection"), (large, PNG))
    picture = load_picture(body)
    assert picture.size == (2000, 1000)
    assert picture.getpixel((999, 500)) == class_colour(0)


def test_the_largest_png_stays_under_torchserves_own_limit(make_handler: MakeHandler) -> None:
    """Noise cannot be compressed; 6,553,500 bytes is `max_response_size` where nothing sets it."""
    noise = encode_image(noise_image(0, (1500, 1500)), "PNG", compress_level=0)
    bodies = [ask(make_handler(task), (noise, PNG))[0][2] for task in ("classification", "detection")]
    assert 5_000_000 < max(map(len, bodies)) < 6_553_500


def test_a_picture_that_cannot_be_drawn_fails_alone(
    make_handler: MakeHandler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("deep inside the drawing")

    monkeypatch.setattr(encoding, "draw_prediction", fail)
    drawn, neighbour = ask(make_handler("classification"), (png(RED), PNG), (png(RED), JSON))
    assert drawn[:2] == (500, JSON)
    assert neighbour[:2] == (200, JSON)
    assert "deep inside" not in drawn[2].decode()
    assert "deep inside the drawing" in caplog.text


def test_the_time_of_drawing_is_told(make_handler: MakeHandler) -> None:
    context = new_context(Path(), [{"accept": PNG}])
    make_handler("classification").handle([{"body": png(RED)}], context)
    assert "draw;dur=" in context.get_response_headers(0)["Server-Timing"]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_of_pixels_can_be_drawn_on(mode: str) -> None:
    encoded = encode_image(PIL.Image.new(mode, (400, 400)), "TIFF")
    assert draw_prediction(open_picture(encoded, ImageLimits()), Detections((), ImageSize(400, 400))).size == (400, 400)


def test_boxes_are_drawn_from_corners_whatever_form_is_asked_for() -> None:
    options = options_for_drawing(DetectionOptions(score_threshold=0.25, box_format="xywhn"))
    assert options == DetectionOptions(score_threshold=0.25, box_format="xyxy")
    assert options_for_drawing(ClassificationOptions(top_k=2)) == ClassificationOptions(top_k=2)
    assert options_for_drawing(MaskOptions(mask_format="rle")) == MaskOptions(mask_format="polygons")
    assert options_for_drawing(MaskOptions(mask_format="none")) == MaskOptions(mask_format="none")
