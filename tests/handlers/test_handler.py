import base64
import gc
import io
import logging
import os
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import PIL.Image
import pytest
import torch
from conftest import CPU, MakeHandler, examples
from fakes import (
    BLUE,
    GREEN,
    HUNGRY,
    NOT_FINITE,
    POISON,
    RED,
    Colour,
    ColourBackend,
    encode_image,
    new_context,
    noise_image,
    png,
    solid_image,
    write_model_dir,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from image_classification import ImageClassificationHandler
from vision_serving.errors import (
    BackendError,
    ConfigError,
    ImageDecodeError,
    InferenceError,
    InvalidOptionError,
    MalformedRequestError,
    OutOfResourcesError,
    PayloadTooLargeError,
    RequestError,
    VisionServingError,
)
from vision_serving.handler import VisionHandler
from vision_serving.predictions import Classification, Detections, Explanation
from vision_serving.requests.contents import Pixels
from vision_serving.requests.payload import Form, Payload, parse_payload
from vision_serving.results.outcome import ImageResult, Outcome
from vision_serving.worker.service import TorchServeHandler, choose_device


@pytest.fixture(scope="module", autouse=True)
def quick_collections() -> None:
    """A handler without memory collects garbage, and would look at what all tests before have left, for a second."""
    gc.collect()
    gc.freeze()


def one(*images: bytes | RequestError, **options: Any) -> Payload:
    return Payload(images=images, options=options)


def summary(item: ImageResult) -> object:
    """The best label, or the type of the error."""
    if isinstance(item, RequestError):
        return type(item)
    if isinstance(item, Classification):
        return item.classes[0].label
    assert isinstance(item, Detections)
    return [detection.label for detection in item.detections]


def summaries(outcomes: list[Outcome]) -> list[list[object]]:
    return [[summary(item) for item in outcome.items] for outcome in outcomes]


def batches_of(handler: VisionHandler) -> list[tuple[int, ...]]:
    assert isinstance(handler.backend, ColourBackend)
    return handler.backend.batches


@pytest.mark.parametrize("hold", [bytearray, memoryview], ids=str)
def test_an_image_may_be_any_bytes_like_object(make_handler: MakeHandler, hold: Any) -> None:
    """As other servers than TorchServe hand it over: encoded, and decoded."""
    handler = make_handler("classification")
    pixels = Pixels(hold(np.full((16, 16, 3), BLUE, np.uint8).tobytes()), 16, 16)
    both = Payload(images=(hold(png(RED)), pixels))
    assert summaries(handler.predict([both])) == [["red", "blue"]]
    explained = [item.label for item in handler.explain([both])[0].items if isinstance(item, Explanation)]
    assert explained == ["red", "blue"]


def test_no_payloads_give_no_outcomes(make_handler: MakeHandler) -> None:
    assert make_handler("classification").predict([]) == []


def test_a_batch_runs_as_one_and_answers_in_order(make_handler: MakeHandler) -> None:
    handler = make_handler("classification")
    outcomes = handler.predict([one(png(RED)), one(png(BLUE)), one(png(GREEN)), one(png(RED))])
    assert summaries(outcomes) == [["red"], ["blue"], ["green"], ["red"]]
    assert batches_of(handler) == [(4, 16, 16, 3)]


FAULTS: dict[str, tuple[bytes | RequestError, dict[str, Any], type[RequestError]]] = {
    "garbage": (b"garbage", {}, ImageDecodeError),
    "empty": (b"", {}, ImageDecodeError),
    "not base64": (MalformedRequestError("b64"), {}, MalformedRequestError),
    "option": (png(RED), {"top_k": 0}, InvalidOptionError),
    "unknown option": (png(RED), {"topk": 1}, InvalidOptionError),
    "too many pixels": (png(RED, (200, 200)), {}, PayloadTooLargeError),
    "poison": (png(POISON), {}, InferenceError),
    "memory": (png(HUNGRY), {}, OutOfResourcesError),
    "not finite": (png(NOT_FINITE), {}, InferenceError),
}


def test_a_request_that_cannot_be_read_for_want_of_memory_is_answered_alone(make_handler: MakeHandler) -> None:
    class Starving(dict[str, bytes]):
        def get(self, *_: object) -> bytes:
            raise MemoryError

    context = new_context(Path(), [{}, {}])
    make_handler("classification").handle([Starving(), {"body": png(RED)}], context)
    assert [context.get_response_status(index)[0] for index in range(2)] == [507, 200]


@pytest.mark.parametrize("position", [0, 1, 3], ids=["first", "middle", "last"])
@pytest.mark.parametrize(("bad", "options", "error"), FAULTS.values(), ids=FAULTS.keys())
def test_a_bad_image_gets_its_own_error_and_its_neighbours_their_answers(
    make_handler: MakeHandler, bad: bytes, options: dict[str, Any], error: type[RequestError], position: int
) -> None:
    handler = make_handler("classification", limits={"max_pixels": 10_000})
    payloads = [one(png(RED)), one(png(GREEN)), one(png(BLUE))]
    expected: list[list[object]] = [["red"], ["green"], ["blue"]]
    payloads.insert(position, one(bad, **options))
    expected.insert(position, [error])
    assert summaries(handler.predict(payloads)) == expected


ANY_IMAGE = st.sampled_from([RED, GREEN, BLUE, POISON, HUNGRY, NOT_FINITE, None])
EXPECTED = {
    RED: "red",
    GREEN: "green",
    BLUE: "blue",
    POISON: InferenceError,
    HUNGRY: OutOfResourcesError,
    NOT_FINITE: InferenceError,
    None: ImageDecodeError,
}


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(st.lists(ANY_IMAGE, min_size=1, max_size=4), max_size=8))
@pytest.mark.parametrize("limit", [1, 3, 32])
def test_nothing_leaks_from_one_item_to_another(
    make_handler: MakeHandler, requests: list[list[tuple[int, int, int] | None]], limit: int
) -> None:
    handler = make_handler("classification", max_images_per_inference=limit)
    payloads = [one(*(b"garbage" if colour is None else png(colour) for colour in request)) for request in requests]
    assert summaries(handler.predict(payloads)) == [[EXPECTED[colour] for colour in request] for request in requests]


def test_a_failing_batch_is_halved_until_the_culprit_stands_alone(make_handler: MakeHandler) -> None:
    handler = make_handler("classification")
    handler.predict([one(png(colour)) for colour in (RED, GREEN, POISON, BLUE)])
    assert [batch[0] for batch in batches_of(handler)] == [4, 2, 2, 1, 1]


def test_the_reason_of_a_failed_inference_stays_in_the_log(
    make_handler: MakeHandler, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = make_handler("classification").predict([one(png(POISON))])[0]
    assert "division by zero" not in str(outcome.items[0])
    assert "division by zero" in caplog.text


def test_a_reason_with_text_that_is_no_utf_8_reaches_a_log_that_takes_no_other(
    make_handler: MakeHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # as a worker's is
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(log)])
    handler = make_handler("classification")

    def fail(*_: object) -> None:
        raise ValueError("no such class: \udcff")

    monkeypatch.setattr(handler, "inference", fail)
    handler.predict([one(png(RED))])
    log.seek(0)
    assert "no such class: " in log.read()


def test_without_a_server_the_reason_is_on_standard_error_as_the_error_says(
    make_handler: MakeHandler, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # those of pytest
    outcome = make_handler("classification").predict([one(png(POISON))])[0]
    assert str(outcome.items[0]).endswith("or on standard error without a server")
    assert "division by zero" in capsys.readouterr().err


def test_a_batch_larger_than_an_inference_takes_is_split(make_handler: MakeHandler) -> None:
    handler = make_handler("classification", max_images_per_inference=2)
    outcomes = handler.predict([one(png(RED), png(GREEN), png(BLUE)), one(png(RED), png(RED))])
    assert summaries(outcomes) == [["red", "green", "blue"], ["red", "red"]]
    assert [batch[0] for batch in batches_of(handler)] == [2, 2, 1]


def test_images_of_several_model_sizes_run_in_groups_and_answer_in_order(make_handler: MakeHandler) -> None:
    bounded = {"resize": {"mode": "bounded_edges", "size": 16, "max_size": 32}}
    handler = make_handler("detection", preprocessing=bounded)
    sizes_hw = [(16, 16), (16, 32), (160, 160), (8, 16), (16, 32)]
    colours = [RED, GREEN, BLUE, RED, BLUE]
    outcomes = handler.predict([one(png(colour, size_hw)) for colour, size_hw in zip(colours, sizes_hw, strict=True)])
    assert summaries(outcomes) == [[["red"]], [["green"]], [["blue"]], [["red"]], [["blue"]]]
    assert sorted(batches_of(handler)) == [(2, 16, 16, 3), (3, 16, 32, 3)]
    for outcome, (height, width) in zip(outcomes, sizes_hw, strict=True):
        detections = outcome.items[0]
        assert isinstance(detections, Detections)
        assert detections.detections[0].box == (0, 0, width / 2, height)
        assert (detections.image.height, detections.image.width) == (height, width)


def test_too_many_images_fail_their_request_alone(make_handler: MakeHandler) -> None:
    handler = make_handler("classification", limits={"max_images": 2})
    outcomes = handler.predict([one(*[png(RED)] * 3), one(png(GREEN), png(BLUE))])
    assert summaries(outcomes) == [[PayloadTooLargeError] * 3, ["green", "blue"]]
    assert str(outcomes[0].items[0]) == "the request holds 3 images; the limit is 2"


def test_more_pixels_than_a_request_may_have_fail_it_alone(make_handler: MakeHandler) -> None:
    """Its own sum: not that of the batch. A file that is no image counts nothing, and the limit itself is allowed."""
    width, height = PIL.Image.open(io.BytesIO(png(RED))).size
    limits = {"max_pixels": width * height, "max_request_pixels": 2 * width * height}
    handler = make_handler("classification", limits=limits)
    (alone,) = make_handler("classification", limits={"max_request_pixels": 1}).predict([one(png(RED))])
    assert summaries([alone]) == [["red"]]  # of one picture `max_pixels` is the limit
    outcomes = handler.predict([one(*[png(RED)] * 3), one(png(GREEN), png(BLUE)), one(png(RED), b"torn", png(RED))])
    assert summaries(outcomes) == [
        [PayloadTooLargeError] * 3, ["green", "blue"], ["red", ImageDecodeError, "red"]
    ]  # fmt: skip
    assert "3 images have" in str(outcomes[0].items[0])
    assert "send them in several requests" in str(outcomes[0].items[0])


@pytest.mark.parametrize(
    "row",
    [
        {"body": b"torn"},
        {"body": b""},
        {"body": png(RED)[:45]},
        {"body": png(RED), "top_k": b"none"},
        {"body": {"instances": [{"b64": "?"}, {"b64": "AAAA"}]}},
        {"body": {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "data": ["?", "AAAA"]}]}},
        {"body": {"instances": 7}},
        {},
    ],
)
def test_a_request_that_fails_is_gone_with_its_answer(make_handler: MakeHandler, row: dict[str, Any]) -> None:
    """An error that kept its frames would keep the batch until a collection of cycles, which comes once in an hour."""
    handler = make_handler("classification")
    gc.collect()
    gc.disable()
    try:
        payload = parse_payload(row, {})
        outcomes = handler.predict([payload, one(png(GREEN))])
        assert any(isinstance(item, RequestError) for item in outcomes[0].items)
        left = weakref.ref(payload)
        del payload, outcomes
        assert left() is None
    finally:
        gc.enable()


def test_a_decoder_that_fails_in_an_unknown_way_fails_its_image_alone(
    make_handler: MakeHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_on_green(image: PIL.Image.Image, orientation: int) -> PIL.Image.Image:
        if image.getpixel((0, 0)) == GREEN:
            raise AttributeError("deep inside a decoder")
        return image

    monkeypatch.setattr("vision_serving.pictures.decoding._to_upright", break_on_green)
    outcomes = make_handler("classification").predict([one(png(RED)), one(png(GREEN)), one(png(BLUE))])
    assert summaries(outcomes) == [["red"], [ImageDecodeError], ["blue"]]


def test_a_huge_class_filter_is_refused_before_it_is_looked_up(make_handler: MakeHandler) -> None:
    [outcome] = make_handler("detection").predict([one(png(RED), class_filter=["blue"] * 1001)])
    assert isinstance(outcome.items[0], InvalidOptionError)


def test_memory_that_torch_cannot_get_on_the_cpu_is_507(
    make_handler: MakeHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = make_handler("classification")
    monkeypatch.setattr(handler.backend, "infer", lambda pixels: torch.empty(10**15))
    assert isinstance(handler.predict([one(png(RED))])[0].items[0], OutOfResourcesError)


@pytest.mark.parametrize("top_k", [1, "2", 3, "1000"])
def test_top_k_is_a_request_option(make_handler: MakeHandler, top_k: int | str) -> None:
    item = make_handler("classification").predict([one(png(RED), top_k=top_k)])[0].items[0]
    assert isinstance(item, Classification)
    assert len(item.classes) == min(int(top_k), 3)


@pytest.mark.parametrize(("background", "label"), [(BLUE, "blue"), (GREEN, "green"), ("none", "red")])
def test_the_archive_says_what_is_behind_transparent_pixels(
    make_handler: MakeHandler, background: object, label: str
) -> None:
    clear = encode_image(PIL.Image.new("RGBA", (8, 8), (*RED, 0)))
    handler = make_handler("classification", colours={"background": background})
    assert summaries(handler.predict([one(clear)])) == [[label]]


def test_an_archive_whose_formats_lack_their_decoder_does_not_load(
    make_handler: MakeHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ConfigError, match="HEIF needs the package 'pillow_heif': pip install"):
        make_handler("classification", limits={"formats": ["JPEG", "HEIF"]})


def test_each_request_of_a_batch_has_its_own_options(make_handler: MakeHandler) -> None:
    outcomes = make_handler("classification").predict([one(png(RED), top_k=k) for k in (3, 1, 2)])
    assert [len(o.items[0].classes) for o in outcomes if isinstance(o.items[0], Classification)] == [3, 1, 2]


def test_the_archive_sets_the_defaults_that_a_request_overrides(make_handler: MakeHandler) -> None:
    handler = make_handler("classification", options={"top_k": 1})
    items = [outcome.items[0] for outcome in handler.predict([one(png(RED)), one(png(RED), top_k=2)])]
    assert [len(item.classes) for item in items if isinstance(item, Classification)] == [1, 2]


@pytest.mark.parametrize(
    ("task", "options", "words"),
    [
        ("classification", {"topk": 1}, ["'topk'", "['top_k']"]),
        ("classification", {"score_threshold": 0.5}, ["'score_threshold'", "['top_k']"]),
        ("classification", {"top_k": 0}, ["'top_k'", "greater than or equal to 1", "got '0'"]),
        ("classification", {"top_k": "many"}, ["'top_k'", "valid integer", "got 'many'"]),
        ("classification", {"top_k": None}, ["'top_k'"]),
        ("detection", {"treshold": 1}, ["class_filter", "iou_threshold", "max_detections", "score_threshold"]),
        ("detection", {"score_threshold": "nan"}, ["'score_threshold'", "got 'nan'"]),
        ("detection", {"iou_threshold": 0}, ["'iou_threshold'", "greater than 0"]),
        ("detection", {"max_detections": 1001}, ["'max_detections'", "less than or equal to 1000"]),
        ("detection", {"class_filter": "cat"}, ["class_filter", "'cat'", "neither a label"]),
        ("detection", {"class_filter": [3]}, ["class_filter", "'3'"]),
        ("detection", {"class_filter": [-1]}, ["class_filter", "'-1'"]),
        ("detection", {"class_filter": {"a": 1}}, ["class_filter"]),
        ("detection", {"class_filter": "9" * 5000}, ["class_filter"]),
        ("detection", {"class_thresholds": "cat:0.5"}, ["class_thresholds", "'cat'", "neither a label"]),
        ("detection", {"class_thresholds": {"red": 0.5, "0": 0.6}}, ["class_thresholds", "'red' is there twice"]),
        ("detection", {"nms": "hard"}, ["nms", "class_wise", "class_agnostic", "soft", "none"]),
        ("detection", {"box_format": "yxyx"}, ["box_format", "xyxy", "xywh", "xyxyn", "xywhn"]),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, dict) else "",
)
def test_a_wrong_option_is_422_and_says_what_is_right(
    make_handler: MakeHandler, task: str, options: dict[str, Any], words: list[str]
) -> None:
    item = make_handler(task).predict([one(png(RED), **options)])[0].items[0]
    assert isinstance(item, InvalidOptionError)
    assert item.status == 422
    assert [word for word in words if word not in str(item)] == []


GRAY = (255, 200, 150)  # all three classes above the threshold


@pytest.mark.parametrize(
    ("wanted", "labels"),
    [
        (None, ["red", "green", "blue"]),
        ("green", ["green"]),
        ("blue, red", ["red", "blue"]),
        ("1", ["green"]),
        ([0, "blue"], ["red", "blue"]),
        ([], []),
    ],
    ids=["all", "label", "two labels", "id as text", "ids and labels", "none"],
)
def test_class_filter_takes_labels_and_class_ids(make_handler: MakeHandler, wanted: object, labels: list[str]) -> None:
    item = make_handler("detection").predict([one(png(GRAY), class_filter=wanted)])[0].items[0]
    assert isinstance(item, Detections)
    assert [detection.label for detection in item.detections] == labels


@pytest.mark.parametrize(
    ("thresholds", "labels"),
    [
        ("green:0.9", ["red", "blue"]),
        ("0:1,2:0.6", ["green"]),
        ({"red": 1, "blue": 0.05}, ["green", "blue", "blue"]),
        ({}, ["red", "green", "blue"]),
    ],
    ids=["label as text", "ids as text", "mapping", "none"],
)
def test_class_thresholds_take_labels_and_class_ids(
    make_handler: MakeHandler, thresholds: object, labels: list[str]
) -> None:
    item = make_handler("detection").predict([one(png(GRAY), class_thresholds=thresholds)])[0].items[0]
    assert isinstance(item, Detections)
    assert [detection.label for detection in item.detections] == labels


@pytest.mark.parametrize(
    ("box_format", "box"),
    [
        ("xyxy", (0, 0, 3.5, 30)),
        ("xywh", (0, 0, 3.5, 30)),
        ("xyxyn", (0, 0, 0.5, 1)),
        ("xywhn", (0, 0, 0.5, 1)),
    ],
)
def test_boxes_come_in_the_format_asked_for(
    make_handler: MakeHandler, box_format: str, box: tuple[float, float, float, float]
) -> None:
    item = make_handler("detection").predict([one(png(RED, (30, 7)), box_format=box_format)])[0].items[0]
    assert isinstance(item, Detections)
    assert item.detections[0].box == box


def test_the_score_threshold_is_a_request_option(make_handler: MakeHandler) -> None:
    handler = make_handler("detection")
    items = handler.predict([one(png(GRAY), score_threshold=threshold) for threshold in (0.05, 0.7, 1.0)])
    assert [len(summary(outcome.items[0])) for outcome in items] == [6, 2, 0]  # type: ignore[arg-type]


def test_boxes_are_in_pixels_of_the_upright_image(make_handler: MakeHandler) -> None:
    exif = (
        b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
    )
    sideways = encode_image(np.full((30, 50, 3), RED, dtype=np.uint8), "JPEG", exif=exif)
    item = make_handler("detection").predict([one(sideways)])[0].items[0]
    assert isinstance(item, Detections)
    assert (item.image.width, item.image.height) == (30, 50)
    assert item.detections[0].box == (0, 0, 15, 50)


def test_scores_and_boxes_are_rounded_python_numbers(make_handler: MakeHandler) -> None:
    item = make_handler("detection").predict([one(png((201, 0, 0), (7, 7)))])[0].items[0]
    assert isinstance(item, Detections)
    assert item.detections[0].score == 0.788235
    assert item.detections[0].box == (0, 0, 3.5, 7)


def test_a_strip_does_not_take_memory_for_its_whole_resized_length(make_handler: MakeHandler) -> None:
    """1 x 4096 resized to 64 rows is 50 MB, of which a crop keeps 12 KB; at 232 rows 1 x 16384 is 2.6 GB."""
    preprocessing = {"resize": {"mode": "shortest_edge", "size": 64}, "crop": [64, 64]}
    handler = make_handler("classification", preprocessing=preprocessing, limits={"max_pixels": 100_000})
    with torch.profiler.profile(profile_memory=True) as profile:
        [[item]] = summaries(handler.predict([one(png(RED, (1, 4096)))]))
    assert item == "red"
    assert max((event.cpu_memory_usage for event in profile.events()), default=0) < 4_000_000


# Loading


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        pytest.param({"labels.json": None}, ConfigError, "labels.json: no such file", id="no labels"),
        pytest.param({"labels.json": b"{"}, ConfigError, "not a readable JSON file", id="labels no json"),
        pytest.param({"labels.json": b'{"0": "red"}'}, ConfigError, "expected a list of strings", id="labels no list"),
        pytest.param({"labels.json": b"[1, 2]"}, ConfigError, "expected a list of strings", id="labels no strings"),
        pytest.param({"model-config.yaml": None}, ConfigError, "no such file", id="no config"),
        pytest.param({"model-config.yaml": b"handler: {}"}, ConfigError, "missing key 'task'", id="empty config"),
        pytest.param({"artifact": None}, BackendError, "no such artifact", id="no artifact"),
    ],
)
def test_a_wrong_archive_fails_at_load(
    tmp_path: Path, colour_backends: None, damage: dict[str, bytes | None], error: type[Exception], message: str
) -> None:
    folder = write_model_dir(tmp_path, "classification")
    for name, content in damage.items():
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
    with pytest.raises(error, match=message):
        ImageClassificationHandler().load(folder, CPU)


@pytest.mark.parametrize("task", ["classification", "detection"])
def test_warming_up_runs_a_batch_of_that_size(make_handler: MakeHandler, task: str) -> None:
    handler = make_handler(task)
    handler.warm_up(5)
    assert batches_of(handler) == [(5, 16, 16, 3)]


def test_a_model_that_cannot_run_at_all_fails_at_warm_up(make_handler: MakeHandler) -> None:
    handler = make_handler("classification")
    handler.backend = ShortBackend()  # type: ignore[assignment]
    with pytest.raises(RuntimeError):
        handler.warm_up(2)


class ShortBackend:
    """Answers one image less than it was given."""

    def infer(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        if len(pixels) > 1:
            raise RuntimeError("this artifact takes one image")
        return {"logits": torch.zeros(len(pixels) - 1, 3)}


def test_a_backend_that_gives_too_few_rows_is_an_error_of_the_images(make_handler: MakeHandler) -> None:
    handler = make_handler("classification")
    handler.backend = ShortBackend()  # type: ignore[assignment]
    assert summaries(handler.predict([one(png(RED)), one(png(RED))])) == [[InferenceError], [InferenceError]]


# The TorchServe side


def answers(
    handler: TorchServeHandler, rows: list[dict[str, Any]], headers: list[dict[str, Any]]
) -> list[tuple[int, Any]]:
    """The status and parsed body of each request of a batch, through TorchServe's own context."""
    context = new_context(Path(), headers)
    bodies = handler.handle(rows, context)
    assert all(isinstance(body, bytes) for body in bodies)
    return [(context.get_response_status(index)[0], orjson.loads(body)) for index, body in enumerate(bodies)]


JSON = {"content-type": "application/json"}


def json_row(*images: bytes, **parameters: Any) -> dict[str, Any]:
    instances = [{"b64": base64.b64encode(image).decode()} for image in images]
    return {"body": orjson.dumps({"instances": instances, "parameters": parameters})}


def tensor_row(*colours: Colour, **parameters: Any) -> dict[str, Any]:
    """One UINT8 tensor of pictures, of Open Inference."""
    data = np.stack([solid_image(colour) for colour in colours])
    tensor = {"name": "image", "datatype": "UINT8", "shape": data.shape, "data": data.ravel().tolist()}
    return {"body": orjson.dumps({"inputs": [tensor], "parameters": parameters})}


def test_a_mixed_batch_is_answered_each_in_its_own_form(make_handler: MakeHandler) -> None:
    rows = [
        {"body": png(RED)},
        {"body": b"garbage"},
        json_row(png(GREEN), b"garbage", top_k=1),
        {},
        {"first": png(BLUE), "second": png(RED), "top_k": b"1"},
        {"body": png(BLUE)},
        tensor_row(GREEN, POISON, top_k=1),
        {"body": b'{"inputs": 5}'},
    ]
    multipart: dict[str, Any] = {"content-type": "multipart/form-data", "first": {"content-type": "image/png"}}
    multipart["second"], multipart["top_k"] = {"content-type": "image/png"}, {"content-type": ""}
    headers: list[dict[str, Any]] = [{}, {}, JSON, {}, multipart, {"X-Inference-Options": "top_k=1"}, JSON, JSON]
    assert {parse_payload(row, head).form for row, head in zip(rows, headers, strict=True)} == set(Form)
    handler = make_handler("classification", options={"top_k": 2})
    found = answers(handler, rows, headers)
    assert [status for status, _ in found] == [200, 400, 200, 400, 200, 200, 200, 400]
    bodies = [body for _, body in found]
    assert bodies[0]["classes"][0]["label"] == "red"
    assert len(bodies[0]["classes"]) == 2
    assert bodies[1]["type"] == "ImageDecodeError"
    assert [list(entry) for entry in bodies[2]["predictions"]] == [["classes"], ["error"]]
    assert bodies[3]["type"] == "MalformedRequestError"
    assert [entry["classes"][0]["label"] for entry in bodies[4]["results"]] == ["blue", "red"]
    assert [entry["label"] for entry in bodies[5]["classes"]] == ["blue"]
    assert (bodies[6]["model_name"], bodies[6]["outputs"][-1]["data"]) == ("colours", ["green", ""])
    assert list(bodies[7]) == ["error", "code", "type"]


WRONG_OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "header": ({"body": png(RED)}, {"X-Inference-Options": "nonsense=1"}),
    "header value": ({"body": png(RED)}, {"x-inference-options": "top_k=0"}),
    "json": (json_row(png(RED), nonsense=1), JSON),
    "tensors": (tensor_row(RED, nonsense=1), JSON),
    "form field": (
        {"f": png(RED), "nonsense": b"1"}, {"content-type": "multipart/form-data", "f": {"content-type": "a/b"}},
    ),
}  # fmt: skip


def test_every_form_of_a_request_has_its_wrong_option() -> None:
    assert {parse_payload(row, headers).form for row, headers in WRONG_OPTIONS.values()} == set(Form)


@pytest.mark.parametrize(("row", "headers"), WRONG_OPTIONS.values(), ids=WRONG_OPTIONS)
def test_a_wrong_option_is_422_in_every_form(
    make_handler: MakeHandler, row: dict[str, Any], headers: dict[str, Any]
) -> None:
    [(status, body)] = answers(make_handler("classification"), [row], [headers])
    assert (status, body["code"], body["type"]) == (422, 422, "InvalidOptionError")
    assert "top_k" in body.get("message", body.get("error"))


def test_every_answer_carries_the_headers_of_the_contract(make_handler: MakeHandler) -> None:
    handler = make_handler("classification")
    context = new_context(Path(), [{}, {}])
    handler.handle([{"body": png(RED)}, {"body": b"garbage"}], context)
    for index in range(2):
        headers = context.get_response_headers(index)
        timing = headers.pop("Server-Timing")
        assert headers == {
            "content-type": "application/json",
            "X-Model-Version": "1.5",
            "X-Backend": "colour_classifier",
            "X-Precision": "fp32",
            "X-Batch-Size": "2",
            "X-Worker-Pid": str(os.getpid()),
            "X-Batch-Failed": "1",
        }
        assert {part.partition(";")[0] for part in timing.split(", ")} >= {
            "decode",
            "preprocess",
            "inference",
            "postprocess",
        }


def test_initialize_loads_and_warms_up(tmp_path: Path, colour_backends: None) -> None:
    handler = ImageClassificationHandler()
    handler.initialize(new_context(write_model_dir(tmp_path, "classification"), batch_size=4))
    assert batches_of(handler) == [(1, 16, 16, 3), (4, 16, 16, 3)]


def test_whatever_fails_while_initializing_is_an_error_that_torchserve_reports(
    tmp_path: Path, colour_backends: None
) -> None:
    folder = write_model_dir(tmp_path, "classification", backend="colour_detector")
    with pytest.raises(VisionServingError, match="logits"):
        ImageClassificationHandler().initialize(new_context(folder))


@pytest.mark.parametrize(
    ("gpu_id", "cuda", "backend", "device"),
    [
        (None, False, "eager", "cpu"),
        (None, True, "eager", "cpu"),
        (1, False, "openvino", "cpu"),
        (1, True, "eager", "cuda:1"),
        (1, True, "openvino", "cpu"),
    ],
)
def test_a_worker_takes_the_gpu_it_was_dealt_where_its_backend_can_use_it(
    monkeypatch: pytest.MonkeyPatch, gpu_id: int | None, cuda: bool, backend: str, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert choose_device(gpu_id, backend) == torch.device(device)


def test_a_gpu_that_cannot_be_used_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendError, match="number_of_gpu=0"):
        choose_device(1, "eager")


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.dictionaries(
            st.sampled_from(["body", "data", "top_k", "class_filter", "image"]),
            st.binary(max_size=30)
            | st.text(max_size=30)
            | st.sampled_from(
                [
                    png(RED),
                    png(POISON),
                    {"instances": [5]},
                    ["x"],
                    json_row(png(RED), class_filter=5)["body"],
                    tensor_row(RED, POISON)["body"],
                    {"inputs": [5]},
                ]
            ),
            max_size=3,
        ),
        min_size=1,
        max_size=6,
    ),
    types=st.lists(
        st.sampled_from(["application/json", "multipart/form-data", "image/png", "text/plain", ""]),
        min_size=6,
        max_size=6,
    ),
    option=st.sampled_from(["", "top_k=1", "max_detections=0", "class_filter=\udcff", "=;=", "score_threshold=1e400"]),
)
@pytest.mark.parametrize("task", ["classification", "detection"])
def test_any_batch_gets_one_valid_answer_each(
    make_handler: MakeHandler, task: str, rows: list[dict[str, Any]], types: list[str], option: str
) -> None:
    headers = [
        {"image": {"content-type": "image/png"}, "content-type": kind, "x-inference-options": option} for kind in types
    ][: len(rows)]
    found = answers(make_handler(task), rows, headers)
    assert len(found) == len(rows)
    assert all((status == 200) == ("code" not in body) for status, body in found)


def test_a_picture_sent_as_pixels_is_answered_as_its_file(make_handler: MakeHandler) -> None:
    handler, picture = make_handler("detection"), noise_image(1, (20, 30))
    pixels = Payload(images=(Pixels(picture.tobytes(), height=20, width=30),))
    assert handler.predict([pixels]) == handler.predict([one(encode_image(picture))])


def test_random_pictures_in_a_batch_are_answered_as_they_are_alone(make_handler: MakeHandler) -> None:
    handler = make_handler("classification")
    pictures = [one(encode_image(noise_image(seed, (20 + seed, 30)))) for seed in range(6)]
    assert handler.predict(pictures) == [handler.predict([picture])[0] for picture in pictures]
