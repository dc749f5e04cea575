"""Several trials in turns, A B C A B C: what else happens on a machine then happens to all of them alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mar_tools.load_testing.measurement import Measurement, take_medians
from mar_tools.load_testing.trials import Load, Trial
from vision_serving.errors import ConfigError


@dataclass(frozen=True)
class Result:
    """A trial's measurements, one a round."""

    target: str
    load: Load
    rounds: tuple[Measurement, ...]

    @property
    def median(self) -> Measurement:
        return take_medians(self.rounds)

    @property
    def spread(self) -> tuple[float, float]:
        """The least and the most requests/s of a round."""
        rates = [measurement.requests_per_s for measurement in self.rounds]
        return min(rates), max(rates)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Result":
        rounds = tuple(Measurement(**entry) for entry in document["rounds"])
        return cls(document["target"], Load(**document["load"]), rounds)

    def as_document(self) -> dict[str, Any]:
        document = {"target": self.target, "load": asdict(self.load), "median": asdict(self.median)}
        return {**document, "requests_per_s_spread": self.spread, "rounds": [asdict(entry) for entry in self.rounds]}


@dataclass(frozen=True)
class Rate:
    """What an open loop is asked for: requests/s, or a share of what the target served at most in closed loops."""

    value: float
    is_share: bool = False

    @classmethod
    def parse(cls, text: str) -> "Rate":
        """`80` or `70%`. Raises ValueError."""
        is_share = text.endswith("%")
        value = float(text.removesuffix("%")) / (100 if is_share else 1)
        if not 0 < value < float("inf"):
            raise ValueError(f"expected a positive rate, got {text!r}")
        return cls(value, is_share)

    def of(self, most: float | None) -> float:
        """requests/s. Raises ConfigError for a share of what is not known, or of nothing."""
        if not self.is_share:
            return self.value
        if not most:
            raise ConfigError(f"a rate of {self.value:.0%} needs a closed loop (--connections) that the server answers")
        return round(self.value * most, 2)


def run_in_turns(trials: Sequence[Trial], rounds: int, announce: Callable[[str], None]) -> list[Result]:
    """Every trial once, then every trial again. announce: called before each with what is about to run."""
    measured: list[list[Measurement]] = [[] for _ in trials]
    for number in range(rounds):
        for trial, measurements in zip(trials, measured, strict=True):
            announce(f"{trial.target}, {trial.load}, round {number + 1} of {rounds}")
            measurements.append(trial.measure(number))
    return [Result(trial.target, trial.load, tuple(found)) for trial, found in zip(trials, measured, strict=True)]


def best_rate(results: Sequence[Result], target: str) -> float | None:
    """The most requests/s of a target's closed loops, by medians."""
    own = [entry for entry in results if entry.target == target and entry.load.kind == "closed"]
    return max((entry.median.requests_per_s for entry in own), default=None)
