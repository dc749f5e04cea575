from argparse import ArgumentTypeError

import pytest

from mar_tools.load_testing.answers import Expected, Found
from mar_tools.load_testing.measurement import (
    Measurement,
    Record,
    Window,
    mean_batch_size,
    measure_records,
    parse_server_timing,
    take_medians,
)
from mar_tools.load_testing.options import Rate
from mar_tools.load_testing.processes import Usage
from mar_tools.load_testing.targets import prepare_requests
from mar_tools.load_testing.trials import Load, LoadResult, LoadTrial, best_rate, run_in_turns
from vision_serving.errors import ConfigError

SEVEN = b'{"classes": [{"class_id": 7, "label": "seven", "score": 0.9}]}'
EIGHT = b'{"classes": [{"class_id": 8, "label": "eight", "score": 0.9}]}'
REQUESTS = prepare_requests(
    [b"a seven", b"an eight"], expected=[Expected((Found(0.9, "seven", 7),)), Expected((Found(0.9, "eight", 8),))]
)
WINDOW = Window(10.0, 12.0)


def measurement(rate: float, p50: float = 1.0, **changes: float) -> Measurement:
    return Measurement(10, 0, 0, 2.0, rate, {"p50": p50}, **changes)  # type: ignore[arg-type]


def test_only_right_answers_count_and_the_others_are_told_apart() -> None:
    records = [
        Record(0, 10.0, 10.1, 200, SEVEN),
        Record(1, 10.0, 10.3, 200, EIGHT),
        Record(1, 10.0, 11.9, 200, SEVEN),
        Record(0, 10.0, 11.9, 503, SEVEN),
        Record(0, 10.0, 11.9, 0),
    ]
    found = measure_records(records, REQUESTS, WINDOW, Usage(cpu_s=0.06, peak_rss_mb=100.0))
    assert (found.requests, found.failed, found.wrong, found.seconds, found.requests_per_s) == (5, 2, 1, 2.0, 1.0)
    assert (found.latency_ms["mean"], found.latency_ms["max"]) == (200.0, 300.0)
    assert found.cpu_ms_per_request == 20.0, "of what the server answered, be it right or wrong"
    assert (found.peak_rss_mb, found.peak_pss_mb) == (100.0, None)


def test_percentiles_are_of_all_latencies() -> None:
    records = [Record(0, 10.0, 10.0 + milliseconds / 1000, 200, SEVEN) for milliseconds in range(1, 102)]
    latencies = measure_records(records, REQUESTS, WINDOW, Usage()).latency_ms
    assert latencies == {"p50": 51.0, "p90": 91.0, "p95": 96.0, "p99": 100.0, "max": 101.0, "mean": 51.0}


def test_nothing_answered_is_a_measurement_too() -> None:
    found = measure_records([Record(0, 10.0, 11.0, 0)], REQUESTS, WINDOW, Usage(cpu_s=1.0))
    assert (found.failed, found.requests_per_s, dict(found.latency_ms), found.cpu_ms_per_request) == (1, 0.0, {}, None)


def test_a_batch_counts_once_however_many_requests_tell_of_it() -> None:
    sizes = ["4"] * 4 + ["1"]
    assert mean_batch_size([Record(0, 0, 1, 200, batch_size=size) for size in sizes]) == 2.5
    assert mean_batch_size([Record(0, 0, 1, 200), Record(0, 0, 1, 200, batch_size="many")]) is None


@pytest.mark.parametrize(
    ("header", "stages"),
    [
        ("decode;dur=1.50, inference;dur=8", {"decode": 1.5, "inference": 8.0}),
        ('cache;desc="hit, or so", db;desc=Postgres;dur="53.2"', {"db": 53.2}),
        ("missed", {}),
        ("", {}),
    ],
)
def test_stages_are_read_from_server_timing(header: str, stages: dict[str, float]) -> None:
    assert parse_server_timing(header) == stages


def test_stages_are_means_over_the_answers_that_tell() -> None:
    headers = ["decode;dur=1, inference;dur=8", "decode;dur=3, inference;dur=12", ""]
    records = [Record(0, 10.0, 10.1, 200, SEVEN, server_timing=header) for header in headers]
    assert measure_records(records, REQUESTS, WINDOW, Usage()).stages_ms == {"decode": 2.0, "inference": 10.0}


def test_rounds_become_medians_sums_and_peaks() -> None:
    rounds = [measurement(rate, 100 / rate, peak_rss_mb=rate) for rate in (10.0, 50.0, 20.0)]
    median = take_medians(rounds)
    assert (median.requests, median.seconds, median.requests_per_s) == (30, 6.0, 20.0)
    assert (median.latency_ms, median.peak_rss_mb, median.peak_pss_mb) == ({"p50": 5.0}, 50.0, None)


def test_trials_take_turns() -> None:
    order: list[str] = []

    def trial(name: str) -> LoadTrial:
        def measure(number: int) -> Measurement:
            order.append(f"{name}{number}")
            return measurement(10.0 + number)

        return LoadTrial(name, Load("closed", 8), measure)

    steps: list[str] = []
    results = run_in_turns([trial("a"), trial("b")], rounds=2, announce=steps.append)
    assert order == ["a0", "b0", "a1", "b1"]
    assert steps[0] == "a, 8 conn., round 1 of 2"
    assert [(result.target, result.spread) for result in results] == [("a", (10.0, 11.0)), ("b", (10.0, 11.0))]


@pytest.mark.parametrize(("text", "rate"), [("80", 80.0), ("0.5", 0.5), ("70%", 28.0)])
def test_a_rate_is_absolute_or_a_share_of_the_best_closed_loop(text: str, rate: float) -> None:
    loads = {Load("closed", 1): 10.0, Load("closed", 8): 40.0, Load("open", 90): 90.0}
    results = [LoadResult("a", load, (measurement(value),)) for load, value in loads.items()]
    results.append(LoadResult("b", Load("closed", 8), (measurement(1000.0),)))
    assert Rate.parse(text).of(best_rate(results, "a")) == rate


@pytest.mark.parametrize("text", ["", "%", "fast", "0", "-5", "-5%", "nan", "inf"])
def test_a_rate_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="expected requests/s such as 80"):
        Rate.parse(text)


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"70% needs a closed loop"):
        Rate.parse("70%").of(best_rate([], "a"))
