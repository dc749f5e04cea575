"""Rounds in turns, medians and ratios."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from mar_tools.benchmarking.comparison import Spread, compare
from mar_tools.benchmarking.targets import Target
from vision_serving.errors import ConfigError

NAMES = ("ours", "peer", "stock")


@dataclass(frozen=True)
class Result:
    requests_per_s: float
    requests: int = 10
    failed: int = 0
    wrong: int = 0


class Script:
    """Gives each target its results in turn; the first is the warm-up's. Remembers who was asked."""

    def __init__(self, **results: Sequence[Result]) -> None:
        self._results = {name: iter(values) for name, values in results.items()}
        self.asked: list[str] = []

    def __call__(self, target: Target) -> Result:
        self.asked.append(target.name)
        return next(self._results[target.name])


def targets(*names: str) -> list[Target]:
    return [Target(name, "http://127.0.0.1:1/predict") for name in names]


def results(*rates: float) -> list[Result]:
    return [Result(rate) for rate in (999.0, *rates)]


def test_the_targets_take_turns_after_a_warm_up_each() -> None:
    script = Script(**{name: results(*[1.0] * 5) for name in NAMES})
    compare(targets(*NAMES), script, rounds=5)
    assert script.asked == list(NAMES) * 6


def test_the_median_of_the_rounds_counts_and_the_warm_up_does_not() -> None:
    script = Script(ours=results(10, 50, 30, 20, 40))
    (row,) = compare(targets("ours"), script).rows
    assert row.requests_per_s == Spread(30, 10, 50)
    assert row.requests == 50


def test_a_ratio_is_of_medians_and_its_spread_is_of_rounds() -> None:
    script = Script(ours=results(10, 20, 30, 40, 50), stock=results(10, 10, 10, 5, 20))
    ours, stock = compare(targets("ours", "stock"), script).rows
    assert ours.ratio == Spread(3.0, 1.0, 8.0)
    assert stock.ratio == Spread(1.0, 1.0, 1.0)


def test_the_baseline_is_the_target_that_is_named() -> None:
    script = Script(ours=results(*[40.0] * 5), stock=results(*[10.0] * 5))
    ours, stock = compare(targets("ours", "stock"), script, baseline="ours").rows
    assert ours.ratio == Spread(1.0, 1.0, 1.0)
    assert stock.ratio == Spread(0.25, 0.25, 0.25)


def test_a_baseline_that_answered_nothing_gives_no_ratio() -> None:
    script = Script(ours=results(*[40.0] * 5), stock=results(10, 10, 0, 10, 10))
    assert [row.ratio for row in compare(targets("ours", "stock"), script).rows] == [None, None]


def test_wrong_and_failed_answers_are_summed_over_the_rounds() -> None:
    flawed = [Result(1.0, failed=7, wrong=7), *[Result(1.0, failed=1, wrong=2)] * 5]
    (row,) = compare(targets("ours"), Script(ours=flawed)).rows
    assert (row.requests, row.failed, row.wrong) == (50, 5, 10)


def test_the_measurements_of_every_round_are_kept_in_order() -> None:
    measured = results(1, 2, 3, 4, 5)
    assert compare(targets("ours"), Script(ours=measured)).rounds == {"ours": tuple(measured[1:])}


def test_what_is_measured_is_announced() -> None:
    said: list[str] = []
    compare(targets("ours"), Script(ours=results(*[1.0] * 5)), announce=said.append)
    assert said == ["warming up ours", *(f"round {number} of 5: ours" for number in range(1, 6))]


@pytest.mark.parametrize(
    ("names", "arguments", "message"),
    [
        ((), {}, "names of their own"),
        (("ours", "ours"), {}, "names of their own"),
        (("ours",), {"rounds": 4}, "at least 5 rounds, got 4"),
        (("ours",), {"baseline": "peer"}, "unknown baseline 'peer'; expected one of \\['ours'\\]"),
    ],
)
def test_a_comparison_that_would_say_nothing_is_refused(
    names: Sequence[str], arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        compare(targets(*names), Script(), **arguments)  # type: ignore[arg-type]
