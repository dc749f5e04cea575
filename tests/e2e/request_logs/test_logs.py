"""One id in every log, and nothing of a client's text in any of them as it came: with the front and without."""

from typing import Any

import pytest

from e2e.test_requests import GARBAGE, OCTETS

from .conftest import Watched

HOSTILE = '\x1b[2J"quoted" \\ \x9b31m \u202e\u061c\u00ad\U000e0041 \x85[METRICS]x|#Level:Host|#hostname:x \u2028[PID]1'


def test_a_failed_request_is_found_in_both_logs_by_one_id(watched: Watched) -> None:
    answer = watched.front.predict(GARBAGE, **{"X-Request-Id": "order-17"})
    assert (answer.status_code, answer.headers["X-Request-Id"]) == (400, "order-17")
    [line], at_front = watched.failures("order-17"), watched.front.line_of(answer)
    assert (line["event"], line["type"], line["status"]) == ("request_failed", "ImageDecodeError", 400)
    assert (at_front["status"], at_front["client"]) == (400, "first")


def test_a_failed_request_without_the_front_is_found_by_the_id_of_its_answer(watched: Watched) -> None:
    answer = watched.server.post("digits", GARBAGE, OCTETS)
    [line] = watched.failures(answer.headers["X-Request-Id"])
    assert line["server_id"] == line["id"]


def test_a_callers_own_id_counts_without_the_front_too(watched: Watched) -> None:
    answer = watched.server.post("digits", GARBAGE, {**OCTETS, "X-Request-Id": "order-18"})
    [line] = watched.failures("order-18")
    assert line["server_id"] == answer.headers["X-Request-Id"]


@pytest.mark.parametrize("by", ["the front", "itself"])
def test_nothing_that_a_client_sends_stands_in_a_log_as_it_came(watched: Watched, by: str) -> None:
    odd = HOSTILE.encode().decode("latin-1") if by == "itself" else HOSTILE.encode()
    headers: dict[str, Any] = {"X-Inference-Options": b"top_k" + HOSTILE.encode() + b"=1", "X-Request-Id": odd}
    headers["traceparent"] = odd
    ask = watched.front.request if by == "the front" else watched.server.request
    answer = ask("POST", "/predictions/digits", {**OCTETS, **headers}, data=GARBAGE)
    assert answer.status_code in (400, 422), answer.content
    [line] = watched.failures(answer.headers["X-Request-Id"])
    assert line["status"] == answer.status_code
    form = {HOSTILE: (HOSTILE, b"x", HOSTILE), "other": "field"}
    ask("POST", "/predictions/digits", files=form)
    ask("POST", "/predictions/digits%0a%1b%5b31m%22%d8%9c%c2%ad%f3%a0%81%81", OCTETS, data=GARBAGE)
    ask("POST", "/v2/models/digits/infer", {"Content-Type": "application/json"}, data=f'{{"{HOSTILE}": 1}}'.encode())
    for name in ("model_log.log", "ts_log.log"):
        assert watched.lines(name)
    watched.read_log("console.log")
    watched.front.log()


def test_a_line_of_torchserve_itself_says_who_spoke(watched: Watched) -> None:
    lines = [line for line in watched.lines("model_log.log") if line.get("message") == "Torch worker started."]
    assert len(lines) == 2, "two workers"
    assert {line["logger"] for line in lines} == {"MODEL_LOG"}
    assert all(line["thread"].startswith("W-") for line in lines)
    assert {line["level"] for line in lines} == {"INFO"}
