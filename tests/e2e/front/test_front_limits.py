"""What the front refuses, and how: every error is JSON, limits hold, malformed requests harm nobody."""

import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from e2e.conftest import Service
from e2e.traffic import keep_comparing

from .conftest import BURST, CONCURRENT, MAX_BODY, PREDICT, REQUESTS_PER_S, TIMEOUT_S, Running, nginx_processes, raw
from .faults import SlowSenders, exchange, malformed_requests

FORM_URLENCODED = "application/x-www-form-urlencoded"
ERRORS: dict[str, tuple[Callable[[str], bytes], int, str]] = {
    "no HTTP": (lambda _: b"\x00\x01\x02\r\n\r\n", 400, "BadRequestError"),
    "two lengths": (raw("POST", PREDICT, "Content-Length: 1", "Content-Length: 2"), 400, "BadRequestError"),
    "unknown route": (raw("GET", "/metrics"), 404, "NotFoundError"),
    "unknown model": (
        raw("POST", "/predictions/nothing", "Content-Type: image/png", "Content-Length: 1", body=b"x"),
        404, "ModelNotFoundException",
    ),
    "no prediction by GET": (raw("GET", PREDICT), 405, "MethodNotAllowedError"),
    "options": (raw("OPTIONS", PREDICT), 405, "MethodNotAllowedError"),
    "trace": (raw("TRACE", PREDICT), 405, "MethodNotAllowedError"),
    "no change of a model": (raw("DELETE", "/v2/models/digits"), 405, "MethodNotAllowedError"),
    "large body": (raw("POST", PREDICT, f"Content-Length: {MAX_BODY + 1}"), 413, "RequestTooLargeError"),
    "large body in chunks": (
        raw("POST", PREDICT, "Transfer-Encoding: chunked", body=b"%x\r\n" % (MAX_BODY + 1) + b"x" * 9),
        413, "RequestTooLargeError",
    ),
    "long path": (raw("GET", "/" + "a" * 33000), 414, "UriTooLongError"),
    "form": (
        raw("POST", PREDICT, f"Content-Type: {FORM_URLENCODED}", "Content-Length: 1", body=b"x"),
        415, "UnsupportedMediaTypeError",
    ),
    "long header": (raw("GET", "/v2", "X-Long: " + "a" * 33000), 431, "HeadersTooLargeError"),
    "unknown coding": (raw("POST", PREDICT, "Transfer-Encoding: gzip"), 501, "NotImplementedError"),
    "unknown version": (lambda _: b"GET / HTTP/7.0\r\nHost: x\r\n\r\n", 505, "HttpVersionError"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "status", "kind"), ERRORS.values(), ids=ERRORS)
def test_every_error_is_json(running: Running, make: Callable[[str], bytes], status: int, kind: str) -> None:
    answer_head, _, body = exchange(running.address, make(running.key)).partition(b"\r\n\r\n")
    error = json.loads(body)
    assert int(answer_head.split()[1]) == status
    assert (error["code"], error["type"]) == (status, kind)
    assert error["message"]
    assert b"application/json" in answer_head
    assert b"nginx/" not in answer_head
    if status == 405:
        assert b"\r\nAllow: " in answer_head


def test_errors_of_v2_are_what_its_clients_read(running: Running) -> None:
    for path in ("/v2/models/nothing", "/v2/models/digits/nothing", "/v2/models/nothing/ready"):
        error = running.request("GET", path).json()
        assert (error["code"], error["error"]) == (404, error["message"])


def test_plain_http_is_told_so(running: Running) -> None:
    response = requests.get(f"http://{running.address[0]}:{running.address[1]}/v2", timeout=TIMEOUT_S)
    assert (response.status_code, response.json()["type"]) == (400, "PlainHttpError")


def test_a_client_that_asks_too_often_is_told_to_wait_and_others_are_served(running: Running, seven: bytes) -> None:
    key = running.add_client("hasty")
    last = raw("GET", "/v2")(key)
    more = last.replace(b"Connection: close\r\n", b"") * 3 * (BURST + REQUESTS_PER_S)
    answer = exchange(running.address, more + last)
    assert answer.count(b"HTTP/1.1 200 OK") >= BURST
    refused = answer.count(b"HTTP/1.1 429 ")
    assert refused > 0
    assert answer.count(b"Retry-After: 1\r\n") == refused
    assert answer.count(b'"type":"TooManyRequestsError"') == refused
    assert running.predict(seven).status_code == 200


def test_slow_senders_are_cut_and_do_not_slow_others(running: Running, seven: bytes) -> None:
    expected = running.predict(seven).json()
    key = running.add_client("slow")
    with keep_comparing(lambda: running.predict(seven).json(), expected) as traffic:
        left = SlowSenders(running.address, key, 200).wait_until_cut(timeout_s=20)
    assert left == 0
    assert len(traffic.wrong) <= 0.001 * traffic.right, traffic.wrong[:3]
    assert traffic.right > 50
    of_slow = [line["status"] for line in running.log() if line["client"] == "slow"]
    assert (of_slow.count(429), of_slow.count(408)) == (100 - CONCURRENT, CONCURRENT)


def test_malformed_requests_leave_everything_as_it_was(running: Running, torchserve: Service, seven: bytes) -> None:
    expected, pids = running.predict(seven).json(), torchserve.worker_pids("digits")
    key = running.add_client("hostile")
    front_pids = {process.pid for process in nginx_processes(running)}

    def send(numbered: tuple[int, bytes]) -> bytes:
        number, request = numbered
        if number % 10 == 0:  # not even TLS
            with socket.create_connection(running.address, timeout=TIMEOUT_S) as plain:
                plain.sendall(request)
            return b""
        return exchange(running.address, request, timeout_s=0.1)

    hostile = list(enumerate(malformed_requests(1000, key)))
    answers = []
    with ThreadPoolExecutor(8) as pool:
        for start in range(0, len(hostile), 100):
            answers += list(pool.map(send, hostile[start : start + 100]))
            assert running.predict(seven).json() == expected
    statuses = {int(answer.split()[1]) for answer in answers if answer.startswith(b"HTTP/1")}
    assert statuses >= {400, 404, 413, 414, 431}
    assert statuses <= {400, 404, 405, 413, 414, 415, 429, 431, 501, 505}
    assert not any(b"modelName" in answer for answer in answers)
    assert torchserve.worker_pids("digits") == pids
    assert {process.pid for process in nginx_processes(running)} <= front_pids, "one ended, and another came"
