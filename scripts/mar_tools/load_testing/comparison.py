"""What several targets, measured in turns, are to each other.

What holds beyond this machine and this hour is a ratio, so that is what is claimed: of the medians of the rounds, with
the least and the most of the ratios within one round.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from mar_tools.load_testing.trials import Load, LoadResult


@dataclass(frozen=True)
class Spread:
    """A median with the least and the most of what it was taken from."""

    median: float
    least: float
    most: float


@dataclass(frozen=True)
class Ratio:
    """The requests/s of a baseline over those of a target. Its `median` is that of the medians over the rounds."""

    baseline: str
    target: str
    load: Load
    requests_per_s: Spread


def compare_results(results: Sequence[LoadResult], baseline: str) -> list[Ratio]:
    """Compare the baseline with all others that answered: in equal closed loops, and at its best with each P."""
    own = {result.load: result for result in results if result.target == baseline and result.load.kind == "closed"}
    best = max(own.values(), key=lambda result: result.median.requests_per_s, default=None)
    ratios = []
    for result in results:
        base = own.get(result.load) if result.load.kind == "closed" else best
        if base is not None and result.target != baseline and result.load.kind != "open" and result.spread[0] > 0:
            ratios.append(Ratio(baseline, result.target, result.load, divide(base, result)))
    return ratios


def divide(base: LoadResult, result: LoadResult) -> Spread:
    """Divide requests/s."""
    return divide_rounds(*([measurement.requests_per_s for measurement in side.rounds] for side in (base, result)))


def divide_rounds(base: Sequence[float], other: Sequence[float]) -> Spread:
    """Divide round by round: those of one number ran one after the other."""
    within = [mine / theirs for mine, theirs in zip(base, other, strict=True)]
    return Spread(statistics.median(base) / statistics.median(other), min(within), max(within))
