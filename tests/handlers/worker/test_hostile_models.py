"""What a hostile model or request makes of one answer: it stays with that request, and never ends the worker.

Through TorchServe's own Service and the encoder of its replies. EXAMPLES=10 makes it thorough: 2,000 batches.
"""

import base64
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import orjson
import pytest
import torch
from conftest import CPU, examples
from fakes import BLUE, GREEN, HUNGRY, NOT_FINITE, POISON, RED, Colour, png, write_model_dir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchserve_worker import TORCHSERVE, Answer, Request, batch_message, raw, read_reply
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.protocol.otf_message_handler import retrieve_msg
from ts.service import Service

from image_classification import ImageClassificationHandler
from vision_serving.backends import BACKENDS
from vision_serving.errors import RequestError
from vision_serving.options import Options
from vision_serving.pictures.resizing import ImageBatch
from vision_serving.predictions import Classification, ClassScore, Prediction
from vision_serving.requests.payload import Form, parse_payload

MAX_ANSWER_BYTES = 50_000


class OddError(RequestError):
    """A status that no table has, which its class alone knows."""

    status = 418


def say(label: Any, score: float = 0.5) -> Classification:
    return Classification((ClassScore(0, label, score),))


def say_itself() -> Prediction:
    circle: list[Any] = []
    circle.append(circle)
    return say(circle)


def fail(error: Exception) -> Prediction:
    raise error


# What the model makes of an image, by its colour: in `postprocess`, or in `join`.
WILD: dict[Colour, Callable[[], Prediction]] = {
    (11, 0, 0): lambda: say("half a \ud83d letter"),
    (12, 0, 0): say_itself,
    (13, 0, 0): lambda: say(object()),
    (14, 0, 0): lambda: say("long" * MAX_ANSWER_BYTES),
    (15, 0, 0): lambda: say("red", float("nan")),
    (16, 0, 0): lambda: say(10**40),
    (17, 0, 0): lambda: fail(OddError("a line\nbreak, \x00 and half a \ud83d letter")),
    (18, 0, 0): lambda: fail(RecursionError("deep\n[PID]1\n[METRICS]x")),
    (19, 0, 0): lambda: fail(StopIteration()),
    (20, 0, 0): lambda: fail(MemoryError()),
    (21, 0, 0): lambda: fail(UnicodeEncodeError("utf-8", "\ud83d", 0, 1, "surrogates not allowed")),
    (22, 0, 0): lambda: None,  # type: ignore[dict-item, return-value]
}
MISSING = (30, 0, 0)  # a batch that holds it gets an answer too few
UNJOINABLE = (31, 0, 0)


class WildHandler(ImageClassificationHandler):
    """Breaks its contract in every way that a model or a task of one's own could."""

    def postprocess(
        self, outputs: Mapping[str, Tensor], batch: ImageBatch, options: Sequence[Options]
    ) -> list[Prediction]:
        colours = [tuple(image[0, 0].tolist()) for image in batch.pixels]
        predictions = super().postprocess(outputs, batch, options)
        found = [WILD[c]() if c in WILD else p for c, p in zip(colours, predictions, strict=True)]
        return found[1:] if MISSING in colours else found

    def join(self, predictions: Sequence[Prediction], geometries: Any, options: Options) -> Prediction:
        if geometries[0].source_hw == (3, 1):  # as pictures of UNJOINABLE are
            raise ZeroDivisionError
        return super().join(predictions, geometries, options)

    def read_options(self, values: Mapping[str, Any]) -> Options:
        if "divide" in values:
            raise ZeroDivisionError
        return super().read_options(values)


def json_request(document: Any, **headers: str) -> Request:
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    headers = {"content-type": "application/json", **headers}
    return Request([("body", "application/json", body)], headers)


def instances(*colours: Colour, **parameters: Any) -> Request:
    images = [{"b64": base64.b64encode(png(colour)).decode()} for colour in colours]
    return json_request({"instances": images, "parameters": parameters})


def tensors(data: Any, **document: Any) -> Request:
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 2, 3], "data": data}
    return json_request({"inputs": [tensor], **document})


def multipart(*colours: Colour, **fields: str) -> Request:
    parts = [(f"file{number}", "image/png", png(colour)) for number, colour in enumerate(colours)]
    parts += [(name, "", value.encode()) for name, value in fields.items()]
    return Request(parts, {"content-type": "multipart/form-data"})


# Every kind of request with the status of its answer.
KINDS: dict[str, tuple[int, Request]] = {
    "red": (200, raw(png(RED))),
    "green, all classes": (200, raw(png(GREEN), **{"X-Inference-Options": "top_k=3"})),
    "blue, as a picture": (200, raw(png(BLUE), accept="image/png")),
    "multipart": (200, multipart(RED, BLUE, top_k="2")),
    "instances": (200, instances(RED, GREEN)),
    "tensors": (200, tensors([9, 8, 7, 6, 5, 4], id="mine")),
    "binary tensors": (200, tensors([9] * 6, parameters={"binary_data_output": True})),
    "gRPC": (200, Request([("data", "", png(GREEN))])),
    "explanation": (200, raw(png(RED), explain="True", **{"X-Inference-Options": "cells=2"})),
    "garbage": (400, raw(b"garbage")),
    "empty": (400, raw(b"")),
    "nothing": (400, Request([])),
    "cut off": (400, raw(png(RED)[:50])),
    "options": (422, raw(png(RED), **{"X-Inference-Options": "top_k=0"})),
    "options of another world": (422, raw(png(RED), **{"X-Inference-Options": "\x00=\U0001f600"})),
    "options that break": (500, raw(png(RED), **{"X-Inference-Options": "divide=1"})),
    "nested": (400, json_request(b'{"inputs":' + b"[" * 5000 + b"]" * 5000 + b"}")),
    "surrogates": (400, json_request(b'{"inputs": [{"name": "\\ud83d"}], "id": "\\ud83d"}')),
    "a number": (400, json_request(b"1e999")),
    "too many": (413, instances(*[RED] * 9)),
    "one bad of two": (200, instances(RED, POISON)),
    "poison": (500, raw(png(POISON))),
    "not finite": (500, raw(png(NOT_FINITE))),
    "explanation of poison": (500, raw(png(POISON), explain="True")),
    "memory": (507, raw(png(HUNGRY))),
    "an answer missing": (500, raw(png(MISSING))),
    "not to be joined": (500, raw(png(UNJOINABLE, (3, 1)))),
    **{
        f"wild {colour[0]}": (status, raw(png(colour)))
        for colour, status in zip(WILD, (500, 500, 500, 413, 500, 500, 418, 500, 500, 507, 500, 200), strict=True)
    },
    "wild as a picture": (500, raw(png((12, 0, 0)), accept="image/png")),
    "wild in instances": (500, instances(RED, (11, 0, 0))),
    "wild in tensors": (500, tensors([11, 0, 0] * 2)),
    "wild in multipart": (413, multipart((14, 0, 0), RED)),
}


class Bytes:
    """What a socket would hand over."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def recv(self, length: int) -> bytes:
        head, self._data = self._data[:length], self._data[length:]
        return head


Ask = Callable[[Sequence[str]], Sequence[Answer]]


def read_batch(requests: Sequence[Request]) -> Any:
    """As TorchServe's decoder hands it to the worker."""
    _, batch = retrieve_msg(Bytes(batch_message(requests)))
    return batch


def test_every_form_of_a_request_is_among_the_kinds() -> None:
    headers, rows, _ = Service.retrieve_data_for_inference(read_batch([request for _, request in KINDS.values()]))
    read = [parse_payload(row, head.get_request_properties()) for row, head in zip(rows, headers, strict=True)]
    assert {payload.form for payload in read} == set(Form)


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """The answers to a batch of KINDS, read by TorchServe's decoder and written by its encoder."""
    torch.set_num_threads(1)
    former = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # each fault is a traceback
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKENDS, "colour_classifier", "fakes:ColourClassifier")
        folder = write_model_dir(tmp_path_factory.mktemp("wild"), "classification", limits={"max_images": 8})
        handler = WildHandler()
        handler.load(folder, CPU)
        handler.max_answer_bytes = MAX_ANSWER_BYTES
        metrics = MetricsCacheYamlImpl(config_file_path=str(TORCHSERVE / "configs" / "metrics.yaml"))
        metrics.initialize_cache()
        service = Service("wild", str(folder), None, handler.handle, None, 8, True, metrics)
        service.set_cl_socket(None)

        def ask(names: Sequence[str]) -> Sequence[Answer]:
            reply = read_reply(bytes(service.predict(read_batch([KINDS[name][1] for name in names]))))
            assert (reply.code, reply.message) == (200, "Prediction success")
            assert [answer.request_id for answer in reply.answers] == [f"request-{n}" for n in range(len(names))]
            return reply.answers

        yield ask
    logging.disable(former)


@pytest.fixture(scope="module")
def alone(ask: Ask) -> dict[str, Answer]:
    """What each kind is answered by itself."""
    return {name: ask([name])[0] for name in KINDS}


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_request_has_its_own_answer(name: str, alone: dict[str, Answer]) -> None:
    answer = alone[name]
    assert answer.status == KINDS[name][0]
    if answer.content_type == "application/json":
        document = json.loads(answer.body) or {}  # null, where a model answers None
        assert (answer.status == 200) == ("code" not in document)
        assert answer.status == document.get("code", 200)
    assert answer.status == 200 or len(answer.body) < 2048
    assert answer.phrase.isascii()
    assert answer.phrase.replace(" ", "").isalpha()


@settings(max_examples=examples(200), deadline=None, suppress_health_check=list(HealthCheck))
@given(names=st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=8))
def test_nothing_in_a_batch_changes_another_answer(ask: Ask, alone: dict[str, Answer], names: list[str]) -> None:
    for name, answer in zip(names, ask(names), strict=True):
        expected = alone[name]
        assert (answer.status, answer.phrase, answer.content_type) == (
            expected.status,
            expected.phrase,
            expected.content_type,
        )
        assert answer.body == expected.body
        assert answer.headers["X-Batch-Size"] == str(len(names))
