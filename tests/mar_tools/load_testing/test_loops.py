"""Closed and open loops against a real small server. Nothing here depends on how fast the machine is."""

import gzip
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from itertools import count, pairwise

import pytest
from conftest import TESTS
from http_fakes import Answer, serve_http

from mar_tools.child_processes import isolated
from mar_tools.load_testing import open_loop
from mar_tools.load_testing.answers import Expected, Found
from mar_tools.load_testing.closed_loop import run_closed_loop
from mar_tools.load_testing.measurement import Measurement
from mar_tools.load_testing.open_loop import draw_arrivals, run_open_loop
from mar_tools.load_testing.targets import Target, prepare_requests
from mar_tools.serving.ports import find_free_ports

SEVEN = b'{"classes": [{"class_id": 7, "label": "seven", "score": 0.9}]}'
EIGHT = b'{"classes": [{"class_id": 8, "label": "eight", "score": 0.9}]}'
EXPECTED = [Expected((Found(0.9, "seven", 7),)), Expected((Found(0.9, "eight", 8),))]
REQUESTS = prepare_requests([b"a seven", b"an eight"], expected=EXPECTED)
RIGHT = {b"a seven": SEVEN, b"an eight": EIGHT}


def answer_right(body: bytes, headers: Mapping[str, str]) -> Answer:
    return Answer(200, RIGHT[body], {"Server-Timing": "decode;dur=1.5, inference;dur=8", "x-batch-size": "4"})


def run_briefly(url: str, connections: int = 2, **target: object) -> Measurement:
    asked = Target("model", url, **target)  # type: ignore[arg-type]
    return run_closed_loop(asked, REQUESTS, connections, duration_s=0.5, warm_up_s=0.1)


def test_a_server_that_is_right_has_its_rate_latencies_stages_and_batches() -> None:
    with serve_http(answer_right) as url:
        found = run_briefly(url)
    assert (found.failed, found.wrong) == (0, 0)
    assert found.requests > 0
    assert found.requests_per_s == pytest.approx(found.requests / found.seconds, rel=0.01)
    assert 0 < found.latency_ms["p50"] <= found.latency_ms["p99"] <= found.latency_ms["max"]
    assert (found.stages_ms, found.batch_size) == ({"decode": 1.5, "inference": 8.0}, 4.0)
    assert found.cpu_ms_per_request is None, "the target has no process to look at"


def test_every_answer_is_compared_with_that_of_its_own_image() -> None:
    with serve_http(lambda body, headers: Answer(200, SEVEN)) as url:
        found = run_briefly(url)
    assert found.failed == 0
    assert 0 < found.wrong < found.requests
    assert found.wrong == pytest.approx(found.requests / 2, abs=2)


def test_images_take_turns_and_carry_the_targets_headers() -> None:
    seen: Counter[tuple[bytes, str, str]] = Counter()

    def answer(body: bytes, headers: Mapping[str, str]) -> Answer:
        seen[body, headers["Authorization"], headers["Content-Type"]] += 1
        return Answer(200, RIGHT[body])

    with serve_http(answer) as url:
        run_briefly(url, headers={"Authorization": "Bearer token"})
    assert seen.keys() == {(body, "Bearer token", "image/jpeg") for body in RIGHT}
    assert abs(seen[b"a seven", "Bearer token", "image/jpeg"] - seen[b"an eight", "Bearer token", "image/jpeg"]) <= 2


def test_a_server_that_could_compress_is_asked_for_plain_answers() -> None:
    def answer(body: bytes, headers: Mapping[str, str]) -> Answer:
        asked = headers.get("Accept-Encoding", "identity")
        return answer_right(body, headers) if asked == "identity" else Answer(200, gzip.compress(RIGHT[body]))

    with serve_http(answer) as url:
        found = run_briefly(url)
    assert found.requests > 0
    assert (found.failed, found.wrong) == (0, 0)


@pytest.mark.parametrize("answer", [Answer(503), Answer(0)], ids=["busy", "breaks the connection"])
def test_a_server_that_fails_has_no_rate(answer: Answer) -> None:
    with serve_http(lambda body, headers: answer) as url:
        found = run_briefly(url)
    assert found.failed == found.requests > 0
    assert (found.wrong, found.requests_per_s, found.latency_ms) == (0, 0.0, {})


def test_all_connections_have_a_request_under_way() -> None:
    """The server answers the first 30 requests in threes that are there together, and never sees a fourth."""
    together = threading.Barrier(3, timeout=5)
    lock, numbers, under_way = threading.Lock(), count(), Counter[str]()

    def answer(body: bytes, headers: Mapping[str, str]) -> Answer:
        with lock:
            under_way["now"] += 1
            under_way["most"] = max(under_way["most"], under_way["now"])
            number = next(numbers)
        if number < 30:
            with suppress(threading.BrokenBarrierError):  # the load ended before, and with it the threes
                together.wait()
        with lock:
            under_way["now"] -= 1
        return Answer(200, RIGHT[body])

    with serve_http(answer) as url:
        found = run_briefly(url, connections=3)
    assert (found.failed, found.wrong) == (0, 0)
    assert under_way["most"] == 3


def test_the_window_waits_for_a_first_answer() -> None:
    def answer(body: bytes, headers: Mapping[str, str]) -> Answer:
        time.sleep(1.0)
        return Answer(200, RIGHT[body])

    with serve_http(answer) as url:
        found = run_closed_loop(Target("model", url), REQUESTS, 1, duration_s=0.1, warm_up_s=0.0)
    assert found.requests == 1
    assert found.seconds > 0.5


SERVER = """
import sys, time
sys.path.append(sys.argv[1])
from conftest import TESTS
from http_fakes import Answer, serve_http
stages = {"Server-Timing": "decode;dur=1.5, inference;dur=8"}
with serve_http(lambda body, headers: Answer(200, headers=stages)) as url:
    print(url, flush=True)
    time.sleep(60)
"""


def test_a_servers_processes_are_watched() -> None:
    with isolated([sys.executable, "-c", SERVER, str(TESTS)], stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        target = Target("small", process.stdout.readline().decode().strip(), pid=process.pid)
        found = run_closed_loop(target, prepare_requests([b"x" * 5000]), 2, 1.0, 0.1)
    assert found.failed == 0
    assert found.cpu_ms_per_request is not None
    assert found.cpu_ms_per_request > 0
    assert found.peak_rss_mb is not None
    assert found.peak_rss_mb > 5
    assert found.stages_ms == {"decode": 1.5, "inference": 8.0}


def test_a_server_that_is_gone_has_failed_and_ends_nothing() -> None:
    found = run_briefly(f"http://127.0.0.1:{find_free_ports(1)[0]}/")
    assert found.requests_per_s == 0.0
    assert found.failed == found.requests > 0


def test_arrivals_are_random_at_the_asked_rate_and_the_same_for_a_seed() -> None:
    arrivals = list(draw_arrivals(rate=50, duration_s=200, seed=1))
    assert arrivals == sorted(arrivals) == list(draw_arrivals(50, 200, seed=1))
    assert arrivals != list(draw_arrivals(50, 200, seed=2))
    assert len(arrivals) == pytest.approx(50 * 200, rel=0.05)  # five standard deviations
    gaps = [later - earlier for earlier, later in pairwise(arrivals)]
    assert sum(gap > 1 / 50 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.03), "exponential: 1/e"


def test_an_open_loop_does_not_wait_for_answers() -> None:
    """The first request is answered only after five more have come."""
    more = threading.Semaphore(0)
    first = threading.Lock()

    def answer(body: bytes, headers: Mapping[str, str]) -> Answer:
        if first.acquire(blocking=False):
            assert all(more.acquire(timeout=20) for _ in range(5))
        else:
            more.release()
        return Answer(200, RIGHT[body])

    with serve_http(answer) as url:
        found = run_open_loop(Target("model", url), REQUESTS, rate=40, duration_s=0.8, seed=0, warm_up_s=0.0)
    assert (found.failed, found.wrong) == (0, 0)
    assert found.requests == len(list(draw_arrivals(40, 0.8, seed=0)))


def test_who_waits_for_a_stalled_server_is_counted_from_when_it_was_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """One connection and 20 ms an answer: what is due within half a second takes `due` x 20 ms, on any machine."""
    monkeypatch.setattr(open_loop, "MAX_CONNECTIONS", 1)

    def answer(body: bytes, headers: Mapping[str, str]) -> Answer:
        time.sleep(0.02)
        return Answer(200, RIGHT[body])

    due = len(list(draw_arrivals(200, 0.5, seed=0)))
    with serve_http(answer) as url:
        found = run_open_loop(Target("model", url), REQUESTS, rate=200, duration_s=0.5, seed=0, warm_up_s=0.0)
    assert found.requests == due
    assert found.latency_ms["max"] >= due * 20 - 500
    assert found.seconds >= due * 0.02
    assert found.requests_per_s <= 50


def test_an_open_loops_warm_up_does_not_count() -> None:
    with serve_http(answer_right) as url:
        found = run_open_loop(Target("model", url), REQUESTS, rate=50, duration_s=0.5, seed=3, warm_up_s=0.5)
    assert found.requests == sum(moment >= 0.5 for moment in draw_arrivals(50, 1.0, seed=3))
    assert (found.failed, found.wrong, found.batch_size) == (0, 0, 4.0)
