"""Spans of a batch: whose, with which times, and what a receiver that fails costs."""

import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from batch_context import Batch
from conftest import MakeHandler
from fakes import RED, png
from http_fakes import Answer, Request, serve_requests

pytest.importorskip("opentelemetry.exporter.otlp", reason="needs requirements/tracing.txt", exc_type=ImportError)

from opentelemetry.proto.trace.v1.trace_pb2 import Span
from span_receiver import SpanReceiver, receive_spans

from mar_tools.serving.ports import find_free_ports
from mar_tools.waiting import wait_until
from vision_serving.answers.responses import ModelIdentity
from vision_serving.timings import StageTimings
from vision_serving.worker.service import TorchServeHandler
from vision_serving.worker.tracing import Tracing

MODEL = ModelIdentity("colours", "1.0")
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
SPAN_ID = "b7ad6b7169203331"


def parent_of(number: int, flags: str = "01") -> dict[str, str]:
    return {"traceparent": f"00-{number:032x}-{SPAN_ID}-{flags}"}


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[SpanReceiver]:
    with receive_spans() as receiver:
        monkeypatch.setenv(ENDPOINT, receiver.url)
        yield receiver


@pytest.fixture
def handler(make_handler: MakeHandler) -> TorchServeHandler:
    return make_handler("classification")


def start(handler: TorchServeHandler) -> None:
    handler.tracing = Tracing.of(MODEL, {"vision.backend": "colours"})


def spans_of(receiver: SpanReceiver, handler: TorchServeHandler, number: int) -> dict[str, Span]:
    """Return the spans of a trace by name."""
    handler.tracing.flush(30)
    found = [span for span in receiver.spans if span.trace_id.hex() == f"{number:032x}"]
    assert len({span.name for span in found}) == len(found)
    return {span.name: span for span in found}


def milliseconds(span: Span) -> float:
    return float(span.end_time_unix_nano - span.start_time_unix_nano) / 1e6


def values(span: Span) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def test_the_spans_of_a_request_are_children_of_its_callers(receiver: SpanReceiver, handler: TorchServeHandler) -> None:
    start(handler)
    now = time.time()
    front = {"X-Request-Arrived": f"t={now - 0.5:.3f}", "X-Request-Start": f"t={now - 0.2:.3f}", "X-Request-Id": "mine"}
    batch = Batch((png(RED), {**parent_of(1), **front}))
    handler.handle(batch.rows, batch)
    found = spans_of(receiver, handler, 1)
    request = found.pop("predict colours")
    assert request.parent_span_id.hex() == SPAN_ID
    assert {span.parent_span_id for span in found.values()} == {request.span_id}
    assert list(found) == ["front", "queue", "decode", "preprocess", "inference", "postprocess", "batch"]
    assert values(request)["vision.request_id"] == "mine"
    assert values(request)["http.response.status_code"] == 200
    assert milliseconds(found["front"]) == pytest.approx(300, abs=2)
    assert 199 <= milliseconds(found["queue"]) < milliseconds(request)
    begins = [span.start_time_unix_nano for span in found.values()][:-1]
    assert begins == sorted(begins)
    assert receiver.resources[0]["service.name"] == "vision-serving"
    assert receiver.resources[0]["vision.version"] == "1.0"


def test_stages_last_as_long_as_server_timing_says(receiver: SpanReceiver, handler: TorchServeHandler) -> None:
    start(handler)
    batch = Batch((png(RED), parent_of(2)))
    handler.handle(batch.rows, batch)
    found = spans_of(receiver, handler, 2)
    stages = dict(part.split(";dur=") for part in batch.answer_headers[0]["Server-Timing"].split(", "))
    assert {name: milliseconds(found[name]) for name in stages} == pytest.approx(
        {name: float(duration) for name, duration in stages.items()}, abs=0.0051
    )


def test_a_batch_is_linked_to_the_spans_of_its_requests(receiver: SpanReceiver, handler: TorchServeHandler) -> None:
    start(handler)
    rows = [(png(RED), parent_of(3)), (png(RED), {}), (png(RED), parent_of(4, "00")), (b"rubbish", parent_of(5))]
    batch = Batch(*rows)
    handler.handle(batch.rows, batch)
    first, last = spans_of(receiver, handler, 3), spans_of(receiver, handler, 5)
    requests = [first["predict colours"], last["predict colours"]]
    assert [link.span_id for link in first["batch"].links] == [request.span_id for request in requests]
    assert values(first["batch"])["vision.batch_size"] == 4
    assert values(requests[1])["error.type"] == "ImageDecodeError"
    assert "batch" not in last
    assert len({span.trace_id for span in receiver.spans}) == 2, "only what its caller samples"


def test_a_stage_that_ran_in_threads_is_divided_and_in_order() -> None:
    parts = [StageTimings(), StageTimings()]
    for part in parts:
        part.milliseconds = {"decode": 30.0, "preprocess": 10.0}
    timings = StageTimings()
    timings.add_shares(40.0, parts)
    assert timings.milliseconds == {"decode": 30.0, "preprocess": 10.0}
    assert timings.started["preprocess"] - timings.started["decode"] == pytest.approx(0.030)


# What goes wrong


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "trac" in record.getMessage()]


def predict(handler: TorchServeHandler, number: int) -> None:
    batch = Batch((png(RED), parent_of(number)))
    [body] = handler.handle(batch.rows, batch)
    assert b"classes" in body


@pytest.mark.parametrize(
    ("variable", "value", "advice"),
    [
        (ENDPOINT, "localhost:4318", "expected http://HOST:4318"),
        (ENDPOINT, "http://", "expected http://HOST:4318"),
        (ENDPOINT, "http://host:port", "expected http://HOST:4318"),
        (ENDPOINT, "ftp://host\x1b:4318", "expected http://HOST:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "expected http/protobuf, got 'grpc'"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "-1", "expected seconds, more than 0 and less than 3600, got '-1'"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "inf", "expected seconds"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "ten", "Invalid timeout value 'ten', using default"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1", "must be positive"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "1", "less than or equal to max_queue_size"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip\x1b", "Unsupported compression type: zip"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key secret", "Header format invalid; correct what is wrong of OTEL_"),
    ],
)
def test_a_wrong_setting_is_one_line_and_predictions_go_on(
    handler: TorchServeHandler,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variable: str,
    value: str,
    advice: str,
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:4318")
    monkeypatch.setenv(variable, value)
    start(handler)
    [line] = said(caplog)
    assert advice in line
    assert variable in line
    assert "restart" in line
    assert line.isprintable()
    assert "secret" not in line
    predict(handler, 1)


def test_a_missing_package_is_named(
    handler: TorchServeHandler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "vision_serving.worker.span_export", None)
    start(handler)
    predict(handler, 1)
    assert "predicts all the same" in said(caplog)[0]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("nobody", "Failed to establish a new connection"),
        ("refuses", "Failed to export span"),
        ("redirects", "Failed to export spans batch code: None, reason: the answer 302 leads elsewhere"),
    ],
)
def test_a_receiver_that_fails_is_told_once_and_again_when_it_works(
    handler: TorchServeHandler,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    reason: str,
) -> None:
    status = 302 if kind == "redirects" else 400

    def answer(request: Request) -> Answer:
        return Answer(status, b"", {"Location": "/elsewhere"})

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1.5")  # for a second attempt, before which it says why
    with serve_requests(answer) as url:
        [closed] = find_free_ports(1)
        monkeypatch.setenv(
            ENDPOINT, f"http://127.0.0.1:{closed}" if kind == "nobody" else url.replace("//", "//user:secret@")
        )
        start(handler)
        for number in range(1, 3):
            predict(handler, number)
            handler.tracing.flush(30)
        [line] = said(caplog)
        assert f"traces reach nobody: {reason}" in line
        assert f"{ENDPOINT}=http://127.0.0.1:" in line
        assert "secret" not in line
        if kind == "refuses":
            status = 200
            predict(handler, 4)
            handler.tracing.flush(30)
            assert wait_until(lambda: len(said(caplog)) == 2, 30)
            assert said(caplog)[1].startswith("traces are received again; ")


def test_a_receiver_that_never_answers_holds_no_prediction_and_no_flush(
    handler: TorchServeHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    asked = threading.Event()

    def answer(request: Request) -> Answer:
        asked.set()
        release.wait(60)
        return Answer(200, b"")

    with serve_requests(answer) as url:
        monkeypatch.setenv(ENDPOINT, url)
        start(handler)
        try:
            predict(handler, 1)
            assert asked.wait(30)
            predict(handler, 2)
            handler.tracing.flush(0.05)  # returns; the receiver holds the thread alone
            before = threading.active_count()
            for _ in range(20):  # of refused batches, while the worker drains
                handler.tracing.flush_soon()
            assert threading.active_count() == before
            predict(handler, 3)
        finally:
            release.set()


def test_an_answer_without_an_end_is_not_read(handler: TorchServeHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    sent, ended = [0], threading.Event()

    def pour(receiver: socket.socket) -> None:
        connection, _ = receiver.accept()
        with connection, suppress(OSError):
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while sent[0] < 256:
                connection.sendall(bytes(1 << 20))
                sent[0] += 1
        ended.set()

    with socket.create_server(("127.0.0.1", 0)) as receiver:
        monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{receiver.getsockname()[1]}")
        threading.Thread(target=pour, args=(receiver,), daemon=True).start()
        start(handler)
        predict(handler, 1)
        handler.tracing.flush(30)
        assert ended.wait(30)
    assert sent[0] < 64


def test_spans_that_find_no_place_are_told_once(
    handler: TorchServeHandler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked, release = threading.Event(), threading.Event()

    def answer(request: Request) -> Answer:
        asked.set()
        release.wait(60)
        return Answer(200, b"")

    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    with serve_requests(answer) as url:
        monkeypatch.setenv(ENDPOINT, url)
        start(handler)
        try:
            predict(handler, 1)
            assert asked.wait(30)
            for number in range(2, 8):
                predict(handler, number)
            assert [line.partition(":")[0] for line in said(caplog)] == ["traces are lost"]
        finally:
            release.set()


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        ("vendor=a1,t-1@sys=b 2", "vendor=a1,t-1@sys=b 2"), ("a=1 , b=2", "a=1,b=2"), ("a" * 600 + "=1", ""), ("a", ""),
        ("a=1\n", ""), ("a=\x1b", ""), ("", ""),
    ],
)  # fmt: skip
def test_a_span_keeps_what_other_tracing_systems_added(
    receiver: SpanReceiver, handler: TorchServeHandler, state: str, kept: str
) -> None:
    start(handler)
    batch = Batch((png(RED), {**parent_of(9), "tracestate": state}))
    handler.handle(batch.rows, batch)
    assert {span.trace_state for span in spans_of(receiver, handler, 9).values()} == {kept}


def test_a_failure_of_its_own_ends_traces_and_no_batch(
    receiver: SpanReceiver, handler: TorchServeHandler, caplog: pytest.LogCaptureFixture
) -> None:
    start(handler)
    handler.tracing._sender.start = None  # type: ignore[union-attr, assignment, method-assign]
    predict(handler, 1)
    predict(handler, 2)
    assert len([line for line in said(caplog) if "traces no more" in line]) == 1


def test_without_an_endpoint_nothing_is_imported_or_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENDPOINT, raising=False)
    assert not Tracing.of(MODEL, {}).is_on
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:4318")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert not Tracing.of(MODEL, {}).is_on
