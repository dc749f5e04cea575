"""One id a request: of the client where it is plain, at TorchServe, in the answer and in the front's log."""

import json
from typing import Any

import pytest

from e2e.conftest import Service

from .conftest import PREDICT, Running
from .faults import Upstream, exchange

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
PLAIN_IDS = ["a", "7", "order-17/scan:2", "Root=1-67891233-abcdef012345678912345678", "user@host+1", "x" * 128]
ODD_IDS = [
    "x" * 129, "-begins-with-none", "two words", 'a"quote', "back\\slash", "a,b", "a;b", "<b>", "caf\u00e9",
    "\x1b[31mred", "tab\there", "del\x7f", "$request_id", "%0a", "",
]  # fmt: skip
ODD_PARENTS = [
    "00-" + "0" * 32 + "-b7ad6b7169203331-01", f"00-{TRACE}-" + "0" * 16 + "-01", f"ff-{TRACE}-b7ad6b7169203331-01",
    PARENT.upper(), PARENT + "-more", PARENT[:-1], "\x1b[31m" + PARENT, PARENT + '"', "",
]  # fmt: skip


@pytest.mark.parametrize("number", PLAIN_IDS)
def test_a_plain_id_goes_to_torchserve_and_comes_back(before_upstream: Running, told: Upstream, number: str) -> None:
    answer = before_upstream.predict(b"x", **{"X-Request-Id": number})
    assert (answer.headers["X-Request-Id"], told.requests[-1][1]["x-request-id"]) == (number, number)
    assert before_upstream.log()[-1]["id"] == number or before_upstream.line_of(answer)


@pytest.mark.parametrize("number", ODD_IDS, ids=map(repr, ODD_IDS))
def test_any_other_id_is_replaced(before_upstream: Running, told: Upstream, number: str) -> None:
    headers = {"X-Request-Id": number.encode("utf-8")}
    answer = before_upstream.request("POST", PREDICT, headers, data=b"x")
    given = answer.headers["X-Request-Id"]
    assert (len(given), set(given) <= set("0123456789abcdef")) == (32, True)
    assert told.requests[-1][1]["x-request-id"] == given
    assert before_upstream.line_of(answer)["status"] == 200


def test_the_trace_of_a_client_goes_to_torchserve_and_comes_back(before_upstream: Running, told: Upstream) -> None:
    answer = before_upstream.predict(b"x", traceparent=PARENT)
    assert (answer.headers["traceparent"], told.requests[-1][1]["traceparent"]) == (PARENT, PARENT)
    assert before_upstream.line_of(answer)["trace_id"] == TRACE


@pytest.mark.parametrize("parent", ODD_PARENTS, ids=map(repr, ODD_PARENTS))
def test_no_other_trace_passes(before_upstream: Running, told: Upstream, parent: str) -> None:
    answer = before_upstream.predict(b"x", traceparent=parent)
    assert "traceparent" not in answer.headers
    assert "traceparent" not in told.requests[-1][1]
    assert before_upstream.line_of(answer)["trace_id"] == ""


STATE = "rojo=00f067aa0ba902b7, t-1@sys=b 2"
ODD_STATES = ["a", "=1", "A=1", "a=1,", "a=b=c", "a=" + "x" * 511, ",".join(["a=1"] * 33), "a=\x1b[31m", "a=1\tb", ""]


@pytest.mark.parametrize("state", [STATE, "a=" + "x" * 510, ",".join(["a=1"] * 32)], ids=len)
def test_what_other_tracing_systems_added_goes_to_torchserve(
    before_upstream: Running, told: Upstream, state: str
) -> None:
    before_upstream.predict(b"x", traceparent=PARENT, tracestate=state)
    assert told.requests[-1][1]["tracestate"] == state
    before_upstream.predict(b"x", tracestate=state)
    assert "tracestate" not in told.requests[-1][1], "it says nothing without the first"


@pytest.mark.parametrize("state", ODD_STATES, ids=map(repr, ODD_STATES))
def test_no_other_state_of_a_trace_passes(before_upstream: Running, told: Upstream, state: str) -> None:
    before_upstream.predict(b"x", traceparent=PARENT, tracestate=state)
    assert "tracestate" not in told.requests[-1][1]
    assert told.requests[-1][1]["traceparent"] == PARENT


def test_an_answer_of_the_front_itself_has_the_id_too(before_upstream: Running) -> None:
    answer = before_upstream.request("POST", PREDICT, {"X-Api-Key": "wrong", "X-Request-Id": "mine"}, data=b"x")
    assert (answer.status_code, answer.headers["X-Request-Id"]) == (401, "mine")
    assert before_upstream.line_of(answer)["status"] == 401


HOSTILE = b'\x1b[2J"quote\\ \xff\xc2\x9b31m \xe2\x80\xae'


@pytest.mark.parametrize(
    "names", [["X-Request-Id", "traceparent", "User-Agent", "Cookie"], ["Referer"], ["Host"]], ids=str
)
@pytest.mark.parametrize("key", ["{key}", "wrong"])
def test_nothing_of_a_client_stands_in_the_logs_as_it_came(
    before_upstream: Running, told: Upstream, names: list[str], key: str
) -> None:
    lines = [*(name.encode() + b": " + HOSTILE for name in names), b"Content-Length: 1", b"X-Api-Key: " + key.encode()]
    told.delay_s = 1.3  # longer than the front waits, which error.log tells
    try:
        check_logs_after(before_upstream, b"POST /predictions/digits HTTP/1.1", lines)
    finally:
        told.delay_s = 0


@pytest.mark.parametrize(
    "path", [b"/" + HOSTILE.replace(b" ", b""), b"/predictions/\xff\xfe", b"/%1b%5b31m%0a%22?\x9b=\xff"]
)
def test_no_path_stands_in_the_logs_as_it_came(before_upstream: Running, path: bytes) -> None:
    check_logs_after(before_upstream, b"GET " + path + b" HTTP/1.1", [])


def check_logs_after(running: Running, first: bytes, lines: list[bytes]) -> None:
    sizes = {path: path.stat().st_size for path in running.front.logs.iterdir()}
    has_host = any(line.startswith(b"Host:") for line in lines)
    head = [first, *([] if has_host else [b"Host: x"]), b"Connection: close", *lines]
    request = b"\r\n".join([*head, b"", b"x"]).replace(b"{key}", running.key.encode())
    exchange(running.address, request)
    for path in running.front.logs.iterdir():
        said = path.read_bytes()[sizes.get(path, 0) :]
        assert all(byte == 10 or 32 <= byte < 127 for byte in said), (path, said)
        if path.name == "access.log":
            for line in said.splitlines():
                json.loads(line)


@pytest.mark.parametrize("by", ["the front", "itself"])
def test_nothing_of_a_client_stands_in_torchserves_logs_of_text_as_it_came(
    running: Running, torchserve: Service, by: str
) -> None:
    """tests/e2e/request_logs/ asks the same of logs in JSON."""
    logs = [torchserve.folder / "logs" / name for name in ("model_log.log", "ts_log.log", "console.log")]
    before = [log.read_bytes().count(b"\n") for log in logs]
    ask = running.request if by == "the front" else torchserve.request
    odd = b"\x1b[2J\xc2\x9b31m \xe2\x80\xae[METRICS]\xd8\x9c"
    headers: dict[str, Any] = {
        "Content-Type": "image/png",
        "X-Inference-Options": b"top_k" + odd + b"=1",
        "X-Request-Id": odd,
    }
    answer = ask("POST", PREDICT, headers, data=b"rubbish")
    assert answer.status_code == 422
    ask(
        "POST",
        PREDICT + "%0a2026-11-29T00:00:00,000%20[INFO%20]%20forged%1b%5b31m%d8%9c%c2%ad%f3%a0%81%81",
        headers,
        data=b"x",
    )
    for log, count in zip(logs, before, strict=True):
        lines = log.read_text(encoding="utf-8").split("\n")
        assert all(line.isprintable() for line in lines[count:]), lines[count:]
        assert not any(line.endswith("forged") for line in lines[count:])
