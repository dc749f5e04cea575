"""Explanations through the handler: options, errors of their own, time, mixed batches, pictures."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import PIL.Image
import pytest
import torch
from conftest import CPU, MakeHandler, TinyModel
from fakes import BLUE, GREEN, HUNGRY, NOT_FINITE, POISON, RED, encode_image, new_context, png

from image_classification import ImageClassificationHandler
from vision_serving.answers import encoding
from vision_serving.errors import (
    ExplanationTimeoutError,
    ImageDecodeError,
    InferenceError,
    InvalidOptionError,
    NotSupportedError,
    OutOfResourcesError,
    PayloadTooLargeError,
    RequestError,
)
from vision_serving.explaining.explanations import TimeShares
from vision_serving.handler import VisionHandler
from vision_serving.pictures.decoding import Image
from vision_serving.predictions import Classification, Explanation
from vision_serving.requests.payload import Payload
from vision_serving.results.outcome import ImageResult
from vision_serving.worker.service import TorchServeHandler

EXPLAIN = {"explain": "True"}


def explain(handler: VisionHandler, image: bytes | RequestError, **options: Any) -> ImageResult:
    [outcome] = handler.explain([Payload((image,), options)])
    return outcome.items[0]


def explained(handler: VisionHandler, image: bytes, **options: Any) -> Explanation:
    item = explain(handler, image, **options)
    assert isinstance(item, Explanation), item
    return item


def red_corner() -> Image:
    """Red in the upper left quarter of gray."""
    image = np.full((16, 16, 3), 110, dtype=np.uint8)
    image[:8, :8] = (255, 0, 0)
    return image


def test_the_best_class_is_explained_with_the_score_of_its_prediction(make_handler: MakeHandler) -> None:
    handler = make_handler("classification")
    [outcome] = handler.predict([Payload((png(GREEN),))])
    assert isinstance(outcome.items[0], Classification)
    best, item = outcome.items[0].classes[0], explained(handler, png(GREEN))
    assert (item.class_id, item.label, item.score) == (best.class_id, best.label, best.score)
    assert item.method == "occlusion"


@pytest.mark.parametrize("wanted", ["blue", 2, "2"])
def test_another_class_is_explained_where_it_is_named(make_handler: MakeHandler, wanted: str | int) -> None:
    item = explained(make_handler("classification"), png(RED), target_class=wanted)
    assert (item.class_id, item.label) == (2, "blue")
    assert item.score < 0.5


def test_what_speaks_for_a_class_is_above_zero_and_what_speaks_against_it_below(make_handler: MakeHandler) -> None:
    handler = make_handler("classification")
    for label, sign in (("red", 1), ("green", -1)):
        values = np.array(explained(handler, encode_image(red_corner()), target_class=label, cells=4).heat_map.values)
        assert values.shape == (4, 4)
        assert (sign * values[:2, :2] > 0.1).all()
        assert (sign * values[2:, 2:] < 0).all()  # beside gray, the mean colour is red


def test_the_map_lies_over_what_the_model_saw_of_the_upright_image(make_handler: MakeHandler) -> None:
    crop = {"resize": {"mode": "shortest_edge", "size": 16}, "crop": [16, 16]}
    handler = make_handler("classification", preprocessing=crop)
    item = explained(handler, png(RED, (40, 80)))
    assert item.heat_map.box == (20, 0, 60, 40)
    assert (item.image.width, item.image.height) == (80, 40)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    sideways = encode_image(np.full((40, 80, 3), RED, dtype=np.uint8), "JPEG", exif=exif)
    assert explained(handler, sideways).heat_map.box == (0, 20, 40, 60)


def test_the_map_of_a_letterboxed_image_reaches_over_its_edges(make_handler: MakeHandler) -> None:
    handler = make_handler("classification", preprocessing={"resize": {"mode": "letterbox", "size": [16, 16]}})
    assert explained(handler, png(RED, (40, 80))).heat_map.box == (0, -20, 80, 60)


FAULTS: dict[str, tuple[bytes | RequestError, dict[str, Any], type[RequestError]]] = {
    "garbage": (b"garbage", {}, ImageDecodeError),
    "poison": (png(POISON), {}, InferenceError),
    "memory": (png(HUNGRY), {}, OutOfResourcesError),
    "not finite": (png(NOT_FINITE), {}, InferenceError),
    "unknown option": (png(RED), {"top_k": 1}, InvalidOptionError),
    "unknown method": (png(RED), {"method": "magic"}, InvalidOptionError),
    "too many cells": (png(RED), {"cells": 17}, InvalidOptionError),
    "unknown class": (png(RED), {"target_class": "purple"}, InvalidOptionError),
    "no such class id": (png(RED), {"target_class": 3}, InvalidOptionError),
    "no gradients": (png(RED), {"method": "saliency"}, NotSupportedError),
    "too many pixels": (png(RED, (200, 200)), {}, PayloadTooLargeError),
}


@pytest.mark.parametrize(("bad", "options", "error"), FAULTS.values(), ids=FAULTS)
def test_a_bad_request_gets_its_own_error_and_its_neighbours_their_explanations(
    make_handler: MakeHandler, bad: bytes, options: dict[str, Any], error: type[RequestError]
) -> None:
    handler = make_handler("classification", limits={"max_pixels": 10_000})
    outcomes = handler.explain([Payload((png(RED),)), Payload((bad,), options), Payload((png(BLUE),))])
    first, failed, last = (outcome.items[0] for outcome in outcomes)
    assert isinstance(first, Explanation)
    assert isinstance(last, Explanation)
    assert (first.label, last.label) == ("red", "blue")
    assert type(failed) is error


def test_each_image_of_a_request_is_explained_or_has_its_error(make_handler: MakeHandler) -> None:
    handler = make_handler("classification", limits={"max_images": 3})
    outcomes = handler.explain([Payload((png(RED), b"garbage", png(BLUE))), Payload((png(RED),) * 4)])
    assert [type(item) for item in outcomes[0].items] == [Explanation, ImageDecodeError, Explanation]
    assert [type(item) for item in outcomes[1].items] == [PayloadTooLargeError] * 4


@pytest.mark.parametrize(("limits", "most"), [({}, 4), ({"max_explanation_images": 2}, 2)])
def test_a_request_for_too_many_explanations_is_refused_by_the_name_of_the_limit(
    make_handler: MakeHandler, limits: dict[str, Any], most: int
) -> None:
    handler = make_handler("classification", limits=limits)
    images = [{"b64": base64.b64encode(png(RED)).decode()}]
    bodies = [{"body": orjson.dumps({"instances": images * count})} for count in (most, most + 1, most + 1)]
    found = answers(handler, bodies, [EXPLAIN, EXPLAIN, {}])
    assert [status for status, _ in found] == [200, 413, 200]
    assert "max_explanation_images" in orjson.dumps(found[1][1]).decode()
    assert f"{most + 1} images; the limit is {most} " in orjson.dumps(found[1][1]).decode()


def test_a_wrong_option_is_answered_with_the_valid_ones(make_handler: MakeHandler) -> None:
    item = explain(make_handler("classification"), png(RED), top_k=3)
    assert str(item) == "unknown option 'top_k'; expected one of ['cells', 'method', 'steps', 'target_class']"


@pytest.mark.parametrize(
    ("task", "limits"), [("detection", {}), ("classification", {"max_explanation_s": 0})], ids=["a detector", "off"]
)
def test_a_model_without_explanations_says_so(make_handler: MakeHandler, task: str, limits: dict[str, Any]) -> None:
    item = explain(make_handler(task, limits=limits), png(RED))
    assert isinstance(item, NotSupportedError)
    assert item.status == 501
    assert str(item) == f"this {task} model gives no explanations"


def test_explanations_that_take_too_long_are_given_up_and_predictions_are_not(make_handler: MakeHandler) -> None:
    handler = make_handler("classification", limits={"max_explanation_s": 1e-9})
    found = answers(handler, [{"body": png(RED)}] * 2, [EXPLAIN, {}])
    assert [(status, body.get("type")) for status, body in found] == [
        (504, ExplanationTimeoutError.__name__),
        (200, None),
    ]


def test_the_time_of_a_batch_is_divided_among_its_explanations(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 100.0, 101.0, 116.0])
    monkeypatch.setattr("vision_serving.explaining.explanations.time.monotonic", lambda: next(clock))
    shares = TimeShares(30, 3)
    assert [shares.next_deadline() for _ in range(3)] == [110.0, 115.5, 130.0]


# With gradients: the tiny classifier of the exports.


@pytest.fixture(scope="module", params=["eager", "torchscript"])
def differentiable(request: pytest.FixtureRequest, tiny_classifier: TinyModel) -> VisionHandler:
    handler = ImageClassificationHandler()
    handler.load(tiny_classifier.folders[request.param], CPU)
    return handler


PICTURE = encode_image(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))


@pytest.mark.parametrize("method", ["occlusion", "integrated_gradients", "saliency"])
def test_backends_of_pytorch_explain_by_every_method(differentiable: VisionHandler, method: str) -> None:
    item = explained(differentiable, PICTURE, method=method)
    side = {"occlusion": 8}.get(method, 32)
    assert (item.heat_map.height, item.heat_map.width, item.method) == (side, side, method)
    assert np.abs(item.heat_map.values).max() > 0


def test_integrated_gradients_of_a_network_add_up(differentiable: VisionHandler) -> None:
    item = explained(differentiable, PICTURE, method="integrated_gradients", steps=128)
    image = torch.from_numpy(np.array(PIL.Image.open(io.BytesIO(PICTURE))))[None]
    baseline = image.float().mean(dim=(0, 1, 2)).expand(image.shape).round().to(torch.uint8).contiguous()
    logits = differentiable.backend.infer(torch.cat((image, baseline)))["logits"][:, item.class_id]
    # A kinked network integrated over 128 points, beside a baseline rounded to whole levels.
    assert np.sum(item.heat_map.values) == pytest.approx(float(logits[0] - logits[1]), abs=0.01)


def test_an_explanation_leaves_no_trace_in_predictions(differentiable: VisionHandler) -> None:
    payload = Payload((PICTURE,))
    before = differentiable.predict([payload])
    explained(differentiable, PICTURE, method="integrated_gradients")
    assert differentiable.predict([payload]) == before


def test_a_backend_without_gradients_names_what_it_has(tiny_classifier: TinyModel) -> None:
    handler = ImageClassificationHandler()
    handler.load(tiny_classifier.folders["openvino"], CPU)
    item = explain(handler, PICTURE, method="saliency")
    assert isinstance(item, NotSupportedError)
    assert str(item).startswith(
        "backend 'openvino' has no method 'saliency'; it has ['occlusion']; an archive built with"
    )
    assert isinstance(explain(handler, PICTURE), Explanation)


# The TorchServe side


def answers(
    handler: TorchServeHandler, rows: list[dict[str, Any]], headers: list[dict[str, Any]]
) -> list[tuple[int, Any]]:
    context = new_context(Path(), headers)
    bodies = handler.handle(rows, context)
    return [(context.get_response_status(index)[0], orjson.loads(body)) for index, body in enumerate(bodies)]


@pytest.mark.parametrize("turn", range(5))
def test_a_mixed_batch_gives_each_what_it_asked_for_wherever_it_stands(make_handler: MakeHandler, turn: int) -> None:
    """The stock handler explains or predicts a whole batch, as its first request says."""
    requests: list[tuple[dict[str, Any], dict[str, Any], int, str]] = [
        ({"body": png(RED)}, {}, 200, "classes"),
        ({"body": png(BLUE)}, EXPLAIN, 200, "heat_map"),
        ({"body": b"garbage"}, EXPLAIN, 400, "ImageDecodeError"),
        ({"body": b"garbage"}, {}, 400, "ImageDecodeError"),
        ({"body": png(GREEN)}, {**EXPLAIN, "X-Inference-Options": "top_k=2"}, 422, "InvalidOptionError"),
        ({"body": png(GREEN)}, {"X-Inference-Options": "cells=2"}, 422, "InvalidOptionError"),
        ({}, EXPLAIN, 400, "MalformedRequestError"),
        ({"body": png(GREEN)}, {"X-Inference-Options": "top_k=2"}, 200, "classes"),
        ({"body": png(GREEN)}, {**EXPLAIN, "X-Inference-Options": "cells=2"}, 200, "heat_map"),
        ({"body": png(RED)}, {"explain": "False", "describe": "True"}, 200, "classes"),
    ]
    requests = requests[2 * turn :] + requests[: 2 * turn]
    found = answers(make_handler("classification"), [row for row, *_ in requests], [own for _, own, *_ in requests])
    for (status, body), (_, _, expected_status, expected) in zip(found, requests, strict=True):
        assert status == expected_status
        assert expected in (body if status == 200 else [body["type"]])


def test_an_explanation_has_the_form_of_its_request(make_handler: MakeHandler) -> None:
    multipart: dict[str, Any] = {**EXPLAIN, "content-type": "multipart/form-data"}
    multipart |= {"a": {"content-type": "image/png"}, "b": {"content-type": "image/png"}, "cells": {"content-type": ""}}
    row = {"a": png(RED), "b": b"garbage", "cells": b"2"}
    [(status, body)] = answers(make_handler("classification"), [row], [multipart])
    assert status == 200
    explanation, failure = body["results"]
    assert list(explanation) == ["class_id", "label", "score", "method", "heat_map", "image"]
    assert list(explanation["heat_map"]) == ["height", "width", "box", "values"]
    assert np.array(explanation["heat_map"]["values"]).shape == (2, 2)
    assert failure["error"]["code"] == 400


def send(handler: TorchServeHandler, row: dict[str, Any], headers: dict[str, Any]) -> tuple[int, str, bytes]:
    context = new_context(Path(), [headers])
    [body] = handler.handle([row], context)
    return context.get_response_status(0)[0], str(context.get_response_content_type(0)), body


def test_a_picture_shows_what_speaks_for_the_class_over_the_image(make_handler: MakeHandler) -> None:
    image = PIL.Image.fromarray(red_corner()).resize((640, 480))
    row, headers = {"body": encode_image(image)}, {**EXPLAIN, "accept": "image/png"}
    status, kind, body = send(make_handler("classification"), row, headers)
    assert (status, kind) == (200, "image/png")
    drawn = PIL.Image.open(io.BytesIO(body))
    assert (drawn.format, drawn.width) == ("PNG", 640)
    red, _, blue = np.moveaxis(np.asarray(drawn, dtype=int)[:480], -1, 0)
    assert (red - blue)[:200, :280].mean() > 50
    assert (blue - red)[300:, 400:].mean() > 10


@pytest.mark.parametrize("fault", ["garbage", "two images", "drawing fails"])
def test_what_cannot_be_one_picture_is_json(
    make_handler: MakeHandler, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    headers: dict[str, Any] = {**EXPLAIN, "Accept": "image/png"}
    row: dict[str, Any] = {"body": b"garbage" if fault == "garbage" else png(RED)}
    if fault == "two images":
        headers |= {"content-type": "multipart/form-data", "a": {"content-type": "a/b"}, "b": {"content-type": "a/b"}}
        row = {"a": png(RED), "b": png(RED)}
    if fault == "drawing fails":
        monkeypatch.setattr(encoding, "draw_explanation", lambda *_: 1 / 0)
    status, kind, body = send(make_handler("classification"), row, headers)
    assert (status, kind) == ({"garbage": 400, "two images": 406, "drawing fails": 500}[fault], "application/json")
    assert orjson.loads(body)


def test_of_an_image_that_is_decoded_smaller_the_map_lies_in_its_own_pixels(make_handler: MakeHandler) -> None:
    large = encode_image(np.full((1200, 1600, 3), RED, dtype=np.uint8), "JPEG")
    whole = explained(make_handler("classification"), large)
    shrunk = explained(make_handler("classification", scaled_decoding=True), large)
    assert shrunk.image == whole.image
    assert shrunk.heat_map.box == pytest.approx(whole.heat_map.box, abs=0.1)
