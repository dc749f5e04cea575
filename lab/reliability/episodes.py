"""One repetition of a fault, and the row of docs/evidence/reliability.md that its repetitions are."""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lab.testbed.findings import Finding
from lab.testbed.traffic import Exchange
from lab.testbed.world import World

HEALTHY_TIMEOUT_S = 60.0


@dataclass
class Episode:
    """What was seen once. failures: all of them. problems: what did not hold of what must."""

    figures: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    patience: float = 1.0  # times that bounds in seconds are multiplied with, where they are not what is tested

    def require(self, condition: bool, otherwise: str) -> None:
        if not condition:
            self.problems.append(otherwise)

    def bound(self, name: str, value: float, most: float, unit: str = "") -> None:
        """Note a figure that may not be more than that."""
        self.figures[name] = round(value, 3)
        self.require(value <= most, f"{name}: {value:.4g}{unit}, and {most:g}{unit} are allowed")

    def bound_time(self, name: str, seconds: float | None, most_s: float) -> None:
        """Bound the time as `bound` does. None: it was never reached."""
        most_s *= self.patience
        if seconds is None:
            self.problems.append(f"{name}: not within {most_s:g} s")
        else:
            self.bound(name, seconds, most_s, " s")


@dataclass(frozen=True)
class FaultRow:
    """run: one repetition. settings: of config.properties, where it needs a server with others."""

    name: str
    fault: str
    must_hold: str
    run: Callable[[World, random.Random], Episode]
    settings: Mapping[str, str] = field(default_factory=dict)


def observe_row(
    row: FaultRow, world: World, repetitions: int, seed: int, command: str, announce: Callable[[str], None]
) -> Finding:
    """Repeat it, each time from a healthy server. Raises ServerError where none can be had."""
    figures: dict[str, list[float]] = {}
    failures: list[str] = []
    problems: list[str] = []
    for number in range(1, repetitions + 1):
        announce(f"{row.name} {number}/{repetitions}")
        problems += [f"{number}: {problem}" for problem in make_healthy(world)]
        episode = row.run(world, random.Random(f"{seed} {row.name} {number}"))
        for name, value in episode.figures.items():
            figures.setdefault(name, []).append(value)
        failures += [f"{number}: {failure}" for failure in episode.failures]
        problems += [f"{number}: {problem}" for problem in episode.problems]
    return Finding(
        row=row.name,
        fault=row.fault,
        must_hold=row.must_hold,
        held=not problems,
        repetitions=repetitions,
        measured={"rate_per_s": round(world.rate, 1), **figures},
        problems=tuple(problems),
        failures=tuple(failures),
        command=command,
    )


def make_healthy(world: World) -> list[str]:
    """Wait for the server, start it again where that does not help, and say so."""
    if world.wait_until_ready(time.perf_counter(), HEALTHY_TIMEOUT_S) is not None:
        return []
    world.restart()
    return [f"before it: the server had not recovered in {HEALTHY_TIMEOUT_S:g} s, and was started again"]


def describe_failures(exchanges: Iterable[Exchange], fault: float) -> list[str]:
    """Return each kind with its count, when its first and last were due, and how long they waited.

    fault: its moment.
    """
    kinds: dict[tuple[bool, str], list[Exchange]] = {}
    for exchange in exchanges:
        if exchange.problem:
            kinds.setdefault((exchange.ask.good, exchange.problem), []).append(exchange)
    return [
        f"{len(found)} {'' if good else 'of the bad requests '}{' '.join(problem.split())}; "
        f"due {_range([entry.due - fault for entry in found], '+')} s, "
        f"waited {_range([entry.latency_s for entry in found])} s"
        for (good, problem), found in kinds.items()
    ]


def _range(values: Sequence[float], sign: str = "") -> str:
    ends = dict.fromkeys(f"{value:{sign}.2f}" for value in (min(values), max(values)))
    return " to ".join(ends)
