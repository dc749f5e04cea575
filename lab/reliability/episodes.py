"""One repetition of a fault, and the row of docs/evidence/reliability.md that its repetitions are."""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lab.testbed.findings import Episode, Finding
from lab.testbed.traffic import Exchange
from lab.testbed.world import World

HEALTHY_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class FaultRow:
    """run: one repetition. settings: of config.properties, where it needs a server with others. once: is enough."""

    name: str
    fault: str
    must_hold: str
    run: Callable[[World, random.Random], Episode]
    settings: Mapping[str, str] = field(default_factory=dict)
    once: bool = False


def observe_row(
    row: FaultRow, world: World, repetitions: int, seed: int, command: str, announce: Callable[[str], None]
) -> Finding:
    """Repeat it, each time from a healthy server. Raises ServerError where none can be had."""
    seen, figures = Episode(), dict[str, list[float]]()
    for number in range(1, repetitions + 1):
        announce(f"{row.name} {number}/{repetitions}")
        seen.problems += [f"{number}: {problem}" for problem in make_healthy(world)]
        episode = row.run(world, random.Random(f"{seed} {row.name} {number}"))
        for name, value in episode.figures.items():
            figures.setdefault(name, []).append(value)
        seen.failures += [f"{number}: {failure}" for failure in episode.failures]
        seen.problems += [f"{number}: {problem}" for problem in episode.problems]
    seen.figures = {"rate_per_s": round(world.rate, 1), **figures}
    return seen.as_finding(row.name, row.fault, row.must_hold, command, repetitions)


def make_healthy(world: World) -> list[str]:
    """Wait for the server, start it again where that does not help, and say so."""
    if world.wait_until_ready(time.perf_counter(), HEALTHY_TIMEOUT_S) is not None:
        return []
    world.restart()
    return [f"before it: the server had not recovered in {HEALTHY_TIMEOUT_S:g} s, and was started again"]


def describe_failures(exchanges: Iterable[Exchange], fault: float) -> list[str]:
    """Return each kind with its count, when its requests were due after `fault`, and how long they waited."""
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
