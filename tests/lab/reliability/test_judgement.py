"""What is made of exchanges, samples and malformed bytes: without a server."""

import random
from collections.abc import Sequence
from itertools import islice

import pytest

from lab.reliability.episodes import describe_failures
from lab.reliability.malformed import malformed_requests
from lab.reliability.soak import judge_growth, judge_latencies
from lab.reliability.worker_faults import HUNG, KILLED, judge_failures
from lab.testbed.findings import Episode
from lab.testbed.sampling import Curve
from lab.testbed.traffic import Ask, Exchange

GOOD, FATAL = Ask("good", "/"), Ask("fatal", "/", good=False)
FAULT = 100.0


def exchange(status: int, due: float = FAULT, waited: float = 0.5, ask: Ask = GOOD, problem: str = "") -> Exchange:
    return Exchange(ask, due, due + waited, status, problem or (f"answered {status}" if status != 200 else ""))


def problems_of(exchanges: Sequence[Exchange], bounds: object = KILLED) -> list[str]:
    episode = Episode()
    judge_failures(episode, exchanges, FAULT, bounds)  # type: ignore[arg-type]
    return episode.problems


def retried(first: Exchange, second: Exchange) -> Exchange:
    return Exchange(second.ask, first.due, second.finished, second.status, second.problem, 0, (first,))


def test_what_was_in_flight_may_fail_once() -> None:
    assert problems_of([retried(exchange(507), exchange(200))] * 4 + [retried(exchange(0), exchange(200))] * 4) == []


@pytest.mark.parametrize(
    ("exchanges", "problem"),
    [
        ([retried(exchange(500), exchange(200))] * 5, "failed: 5, and 4 are allowed"),
        ([retried(exchange(0), exchange(200))] * 5, "unanswered: 5, and 4 are allowed"),
        ([retried(exchange(503), exchange(200))], "failed_otherwise: 1, and 0 are allowed"),
        ([retried(exchange(500), exchange(500))], "visible_after_a_retry: 1, and 0 are allowed"),
        ([exchange(200, problem="another answer")], "1 answers were wrong"),
    ],
)
def test_anything_more_is_a_problem(exchanges: Sequence[Exchange], problem: str) -> None:
    assert problem in problems_of(exchanges)


def test_the_fatal_request_itself_is_one_of_those_in_flight_and_none_that_a_client_repeats() -> None:
    assert problems_of([exchange(500, ask=FATAL)] + [retried(exchange(500), exchange(200))] * 3) == []


def test_a_request_that_hangs_with_its_worker_fails_when_the_server_gives_it_up() -> None:
    assert problems_of([retried(exchange(500, waited=5.1), exchange(200))] * 4, HUNG) == []
    late = problems_of([retried(exchange(500, waited=7.0), exchange(200))], HUNG)
    assert late == ["slowest_failure_s: 7 s, and 6.5 s are allowed"]


def test_failures_of_a_kind_are_told_together_and_none_is_lost() -> None:
    lines = describe_failures(
        [exchange(500), exchange(500, FAULT + 2, 1.0), exchange(0, ask=FATAL), exchange(200)], FAULT
    )
    assert lines == [
        "2 answered 500; due +0.00 to +2.00 s, waited 0.50 to 1.00 s",
        "1 of the bad requests answered 0; due +0.00 s, waited 0.50 s",
    ]


def test_bounds_in_seconds_stretch_with_patience_and_counts_do_not() -> None:
    episode = Episode(patience=3)
    episode.bound_time("ready_s", 14.0, 5.0)
    episode.bound("failed", 1, 0)
    episode.bound_time("gone_s", None, 5.0)
    assert episode.problems == ["failed: 1, and 0 are allowed", "gone_s: not within 15 s"]
    assert episode.figures == {"ready_s": 14.0, "failed": 1}


def curve(growth_mb_per_h: float, descriptors: Sequence[int] = (40,) * 120) -> Curve:
    noise = random.Random(0)
    moments = [5.0 * number for number in range(120)]
    memory = [200 + growth_mb_per_h * moment / 3600 + noise.uniform(-0.2, 0.2) for moment in moments]
    memory[60] += 500  # one sample that is far off
    return Curve("worker 1", 1, moments, memory, list(descriptors))


@pytest.mark.parametrize(("growth", "held"), [(0.0, True), (5.0, True), (30.0, False)])
def test_a_slope_of_memory_is_seen_through_noise(growth: float, held: bool) -> None:
    assert curve(growth).growth_mb_per_h(100.0) == pytest.approx(growth, abs=2.0)
    episode = Episode()
    judge_growth(episode, [curve(growth)], 100.0)
    assert (episode.problems == []) == held


def test_descriptors_that_are_never_closed_are_seen() -> None:
    episode = Episode()
    judge_growth(episode, [curve(0.0, range(40, 160))], 100.0)
    assert [problem.partition(":")[0] for problem in episode.problems] == ["worker_1_more_descriptors"]


def test_latencies_that_rise_are_seen() -> None:
    episode = Episode()
    judge_latencies(episode, [(float(due), 0.01 if due < 40 else 0.02) for due in range(60)], 60.0)
    assert episode.problems == ["p99_ratio: 2, and 1.2 are allowed"]


def test_malformed_requests_are_many_kinds_and_the_same_for_a_seed() -> None:
    first, again = (list(islice(malformed_requests(random.Random(0), "Bearer x"), 500)) for _ in range(2))
    assert first == again
    assert len(set(first)) > 300
    assert max(map(len, first)) > 60_000
