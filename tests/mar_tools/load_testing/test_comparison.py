"""Medians, ratios and their spread."""

import pytest

from mar_tools.load_testing.comparison import Spread, compare_results, divide
from mar_tools.load_testing.measurement import Measurement
from mar_tools.load_testing.trials import Load, LoadKind, LoadResult


def result(target: str, kind: LoadKind, amount: float, *rates: float) -> LoadResult:
    rounds = tuple(Measurement(10, 0, 0, 1.0, rate, {}) for rate in rates)
    return LoadResult(target, Load(kind, amount), rounds)


def test_a_ratio_is_that_of_the_medians_and_its_spread_that_within_rounds() -> None:
    ours, peer = result("ours", "closed", 8, 90, 100, 110), result("peer", "closed", 8, 60, 40, 50)
    assert divide(ours, peer) == Spread(2.0, 1.5, 2.5)


def test_each_load_is_compared_with_the_same_load_and_p_with_the_best() -> None:
    results = [
        result("ours", "closed", 1, 50),
        result("ours", "closed", 8, 100),
        result("peer", "closed", 1, 25),
        result("peer", "closed", 8, 80),
        result("peer", "closed", 16, 80),
        result("peer", "open", 8, 80),
        result("dead", "closed", 8, 0),
        result("ours (P)", "in_process", 4, 125),
    ]
    found = [(ratio.target, str(ratio.load), ratio.requests_per_s.median) for ratio in compare_results(results, "ours")]
    assert found == [("peer", "1 conn.", 2.0), ("peer", "8 conn.", 1.25), ("ours (P)", "batch 4", 0.8)]


@pytest.mark.parametrize("results", [[], [result("peer", "closed", 8, 80)]])
def test_without_the_baseline_there_is_nothing_to_compare(results: list[LoadResult]) -> None:
    assert compare_results(results, "ours") == []
