"""The line of a request that failed, as a worker of TorchServe writes it."""

import base64
import json
import logging
from typing import Any

import pytest
from batch_context import Batch
from conftest import MakeHandler
from fakes import RED, png

from mar_tools.ray_serving.exchange import BatchContext, Request
from vision_serving.worker.service import TorchServeHandler

HEADERS = {"X-Request-Id": "order-17", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}


@pytest.fixture
def handler(make_handler: MakeHandler) -> TorchServeHandler:
    return make_handler("classification")


def lines_of(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    messages = [record.getMessage() for record in caplog.records if record.name.endswith("failure_log")]
    assert all(" " <= letter <= "~" for message in messages for letter in message)
    return [json.loads(message) for message in messages]


def test_each_failed_request_is_one_line_and_others_are_none(
    handler: TorchServeHandler, caplog: pytest.LogCaptureFixture
) -> None:
    batch = Batch((png(RED), HEADERS), (b"rubbish", HEADERS), (b"rubbish", {}))
    handler.handle(batch.rows, batch)
    first, second = lines_of(caplog)
    assert first.pop("time")
    assert first.pop("pid")
    assert first == {
        "event": "request_failed", "id": "order-17", "server_id": "57c2-1",
        "trace_id": "0af7651916cd43dd8448eb211c80319c", "model": "colours", "version": "1.0", "status": 400,
        "type": "ImageDecodeError", "message": first["message"], "images": 1, "failed": 1, "batch_size": 3,
    }  # fmt: skip
    assert (second["id"], second["server_id"], second["trace_id"]) == ("57c2-2", "57c2-2", "")


def test_an_image_that_failed_among_others_is_a_line(
    handler: TorchServeHandler, caplog: pytest.LogCaptureFixture
) -> None:
    body = json.dumps({"instances": [{"b64": base64.b64encode(data).decode()} for data in (png(RED), b"no image")]})
    batch = Batch((body.encode(), {"content-type": "application/json"}))
    handler.handle(batch.rows, batch)
    [line] = lines_of(caplog)
    assert (line["status"], line["images"], line["failed"], line["type"]) == (200, 2, 1, "ImageDecodeError")


def test_a_server_without_ids_of_its_own_has_the_callers(
    handler: TorchServeHandler, caplog: pytest.LogCaptureFixture
) -> None:
    requests = [Request({"body": b"rubbish"}, dict(HEADERS)), Request({"body": b"rubbish"}, {})]
    handler.handle([request.row for request in requests], BatchContext("colours", {}, {}, requests))  # of Ray Serve
    assert [(line["id"], line["server_id"]) for line in lines_of(caplog)] == [("order-17", ""), ("", "")]


def test_an_answer_that_is_too_long_is_a_line(handler: TorchServeHandler, caplog: pytest.LogCaptureFixture) -> None:
    handler.max_answer_bytes = 10
    batch = Batch((png(RED), HEADERS))
    handler.handle(batch.rows, batch)
    [line] = lines_of(caplog)
    assert (line["status"], line["type"], line["failed"]) == (413, "PayloadTooLargeError", 1)


@pytest.mark.parametrize("odd", ["\x1b[2J", '"},{"', "\u202e", "\x85[METRICS]", "\\", "\x7f"])
def test_nothing_that_a_client_sends_stands_in_a_line_as_it_came(
    handler: TorchServeHandler, caplog: pytest.LogCaptureFixture, odd: str
) -> None:
    caplog.set_level(logging.DEBUG)
    header = odd.encode().decode("latin-1")  # as TorchServe hands it over
    options = {"X-Inference-Options": f"top_k{header}=1", "X-Request-Id": header, "traceparent": header}
    batch = Batch((png(RED), options), (f'{{"{odd}": 1}}'.encode(), {"content-type": "application/json"}))
    handler.handle(batch.rows, batch)
    first, second = lines_of(caplog)
    assert (first["status"], second["status"]) == (422, 400)
    assert (first["id"], first["trace_id"]) == ("57c2-0", "")
