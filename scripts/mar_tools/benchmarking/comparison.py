"""Several served models measured in turns, A B C A B C: whatever else the machine does meets all of them alike.

What holds beyond this machine and this hour is a ratio, so that is what is claimed: of the medians of the rounds, with
the least and the most of the ratios within one round.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from mar_tools.benchmarking.targets import Target
from vision_serving.errors import ConfigError

LEAST_ROUNDS = 5


class Measured(Protocol):
    """What a comparison reads of a measurement. wrong: answered 200, but not as expected; failed: all others."""

    @property
    def requests(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def wrong(self) -> int: ...
    @property
    def requests_per_s(self) -> float: ...


MeasuredT = TypeVar("MeasuredT", bound=Measured)


@dataclass(frozen=True)
class Spread:
    """A median with the least and the most of what it was taken from."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Row:
    """One target over all rounds.

    ratio: `median` of the target's median over the baseline's, `least` and `most` within one round; None where the
    baseline answered nothing in one of them.
    """

    name: str
    requests_per_s: Spread
    ratio: Spread | None
    requests: int
    failed: int
    wrong: int


@dataclass(frozen=True)
class Comparison(Generic[MeasuredT]):
    """rounds: the measurements by target, in the order of the rounds."""

    baseline: str
    rows: tuple[Row, ...]
    rounds: Mapping[str, tuple[MeasuredT, ...]]


def compare(
    targets: Sequence[Target],
    measure: Callable[[Target], MeasuredT],
    rounds: int = LEAST_ROUNDS,
    baseline: str | None = None,
    announce: Callable[[str], None] = lambda _: None,
) -> Comparison[MeasuredT]:
    """Measure each target once to warm it up, which is not counted, and then in so many rounds.

    measure: one closed loop on one target. baseline: the name of the target that the others are divided by; the last
    one where it is None. announce: told before each measurement.
    Raises ConfigError for too few rounds, an unknown baseline, or targets that share a name.
    """
    names = [target.name for target in targets]
    baseline = _check(names, rounds, baseline)
    measured: dict[str, list[MeasuredT]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for target in targets:
            announce(f"round {number} of {rounds}: {target.name}" if number else f"warming up {target.name}")
            result = measure(target)
            if number:
                measured[target.name].append(result)
    return Comparison(
        baseline,
        tuple(_summarise(name, measured[name], measured[baseline]) for name in names),
        {name: tuple(results) for name, results in measured.items()},
    )


def _check(names: Sequence[str], rounds: int, baseline: str | None) -> str:
    """The baseline's name."""
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"expected targets with names of their own, got {list(names)}")
    if rounds < LEAST_ROUNDS:
        raise ConfigError(f"expected at least {LEAST_ROUNDS} rounds, got {rounds}: medians of fewer say little")
    if baseline is None:
        return names[-1]
    if baseline not in names:
        raise ConfigError(f"unknown baseline {baseline!r}; expected one of {list(names)}")
    return baseline


def _summarise(name: str, results: Sequence[Measured], base: Sequence[Measured]) -> Row:
    return Row(
        name=name,
        requests_per_s=Spread.of([result.requests_per_s for result in results]),
        ratio=_divide(results, base),
        requests=sum(result.requests for result in results),
        failed=sum(result.failed for result in results),
        wrong=sum(result.wrong for result in results),
    )


def _divide(results: Sequence[Measured], base: Sequence[Measured]) -> Spread | None:
    if any(result.requests_per_s <= 0 for result in base):
        return None
    pairs = zip(results, base, strict=True)
    within = Spread.of([result.requests_per_s / other.requests_per_s for result, other in pairs])
    medians = [statistics.median(entry.requests_per_s for entry in entries) for entries in (results, base)]
    return Spread(medians[0] / medians[1], within.least, within.most)
