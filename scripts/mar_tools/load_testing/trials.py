"""Trials of a load test: one target under one load. Several take turns, A B C A B C, so that noise hits them alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mar_tools.load_testing.closed_loop import run_closed_loop
from mar_tools.load_testing.in_process import measure_in_process
from mar_tools.load_testing.measurement import Measurement, take_medians
from mar_tools.load_testing.open_loop import run_open_loop
from mar_tools.load_testing.targets import Request, Target

LoadKind = Literal["closed", "open", "in_process"]
IN_PROCESS = " (P)"  # after the name of a served model, where it is measured without its server


@dataclass(frozen=True)
class Load:
    """How a target is loaded: by so many connections of a closed loop, requests/s of an open one, images in a batch."""

    kind: LoadKind
    amount: float

    def __str__(self) -> str:
        return {"closed": "{:g} conn.", "open": "{:g}/s", "in_process": "batch {:g}"}[self.kind].format(self.amount)


@dataclass(frozen=True)
class LoadTrial:
    """measure: runs it once, given the number of the round."""

    target: str
    load: Load
    measure: Callable[[int], Measurement]


@dataclass(frozen=True)
class LoadResult:
    """A trial's measurements, one a round."""

    target: str
    load: Load
    rounds: tuple[Measurement, ...]

    @property
    def median(self) -> Measurement:
        return take_medians(self.rounds)

    @property
    def spread(self) -> tuple[float, float]:
        """Return the least and the most requests/s of a round."""
        rates = [measurement.requests_per_s for measurement in self.rounds]
        return min(rates), max(rates)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "LoadResult":
        rounds = tuple(Measurement(**entry) for entry in document["rounds"])
        return cls(document["target"], Load(**document["load"]), rounds)

    def as_document(self) -> dict[str, Any]:
        document = {"target": self.target, "load": asdict(self.load), "median": asdict(self.median)}
        return {**document, "requests_per_s_spread": self.spread, "rounds": [asdict(entry) for entry in self.rounds]}


def closed_trial(target: Target, requests: Sequence[Request], connections: int, duration_s: float) -> LoadTrial:
    def measure(_: int) -> Measurement:
        return run_closed_loop(target, requests, connections, duration_s)

    return LoadTrial(target.name, Load("closed", connections), measure)


def open_trial(target: Target, requests: Sequence[Request], rate: float, duration_s: float) -> LoadTrial:
    """Return an open loop. Each round has arrivals of its own, the same for every target of that rate."""

    def measure(number: int) -> Measurement:
        return run_open_loop(target, requests, rate, duration_s, seed=number)

    return LoadTrial(target.name, Load("open", rate), measure)


def in_process_trial(
    name: str, export: Path, images: Sequence[bytes], processes: int, threads: int, batch_size: int, duration_s: float
) -> LoadTrial:
    def measure(_: int) -> Measurement:
        return measure_in_process(export, images, processes, threads, batch_size, duration_s)

    return LoadTrial(name + IN_PROCESS, Load("in_process", batch_size), measure)


def run_in_turns(trials: Sequence[LoadTrial], rounds: int, announce: Callable[[str], None]) -> list[LoadResult]:
    """Run every trial once, then every trial again. announce: called before each with what is about to run."""
    measured: list[list[Measurement]] = [[] for _ in trials]
    for number in range(rounds):
        for trial, measurements in zip(trials, measured, strict=True):
            announce(f"{trial.target}, {trial.load}, round {number + 1} of {rounds}")
            measurements.append(trial.measure(number))
    return [LoadResult(trial.target, trial.load, tuple(found)) for trial, found in zip(trials, measured, strict=True)]


def best_rate(results: Sequence[LoadResult], target: str) -> float | None:
    """Return the most requests/s of a target's closed loops, by medians."""
    own = [entry for entry in results if entry.target == target and entry.load.kind == "closed"]
    return max((entry.median.requests_per_s for entry in own), default=None)
