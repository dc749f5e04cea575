"""Processes that work through steps one by one, watched for time and memory."""

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import orjson
import psutil

from lab.sweeping.coverage import Outcome
from mar_tools.child_processes import describe_end, has_ended, isolated
from vision_serving.validation import parse_config

POLL_S = 0.1
GIB = 2**30


@dataclass(frozen=True)
class Limits:
    """Of one step: one model on one backend in one precision, the start of its process included."""

    timeout_s: float = 300.0
    memory_gib: float = 16.0


@dataclass(frozen=True)
class Step:
    """What became of one. stopped: its process is not there any more."""

    name: str
    outcome: Outcome
    seconds: float
    peak_gib: float
    stopped: bool = False


def run_steps(
    command: Callable[[Sequence[str]], list[str]],
    names: Sequence[str],
    outcomes: Path,
    limits: Limits,
    begins: Callable[[str], None],
) -> Iterator[Step]:
    """Yield one process for all, which writes `<name>.json` in order; when one is stopped, another for the others."""
    left = list(names)
    while left:
        for step in _run_process(command(left), tuple(left), outcomes, limits, begins):
            left.remove(step.name)
            yield step


def _run_process(
    command: list[str],
    names: Sequence[str],
    outcomes: Path,
    limits: Limits,
    begins: Callable[[str], None],
) -> Iterator[Step]:
    log = outcomes / "log"
    with log.open("wb") as output, isolated(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output) as process:
        for name in names:
            begins(name)
            step = _await_step(process, name, outcomes, limits)
            if step.stopped:
                break
            yield step
        else:
            return
    if step.outcome.reason is None:  # it ended by itself, and how is known only now
        problem = describe_end(process.returncode, log) or "ended without an outcome"
        outcome = Outcome(status="crashed", reason=problem.removeprefix("crashed: "))
        step = Step(step.name, outcome, step.seconds, step.peak_gib, stopped=True)
    yield step


def _await_step(process: "subprocess.Popen[bytes]", name: str, outcomes: Path, limits: Limits) -> Step:
    path, started, peak_gib = outcomes / f"{name}.json", time.monotonic(), 0.0
    while True:
        ended, seconds = has_ended(process), time.monotonic() - started
        peak_gib = max(peak_gib, resident_gib(process.pid))
        if path.is_file():
            outcome = parse_config(Outcome, orjson.loads(path.read_bytes()), str(path))
            return Step(name, outcome, seconds, peak_gib)
        if ended:
            return Step(name, Outcome(status="crashed"), seconds, peak_gib, stopped=True)
        stop = _find_excess(seconds, peak_gib, limits)
        if stop is not None:
            return Step(name, stop, seconds, peak_gib, stopped=True)
        time.sleep(POLL_S)


def _find_excess(seconds: float, peak_gib: float, limits: Limits) -> Outcome | None:
    if seconds > limits.timeout_s:
        return Outcome(status="timed out", reason=f"stopped after {limits.timeout_s:g} s")
    if peak_gib > limits.memory_gib:
        return Outcome(status="crashed", reason=f"stopped at {limits.memory_gib:g} GiB of memory")
    return None


def resident_gib(pid: int) -> float:
    """Return GiB of a process and its descendants, for example compilers; shared pages count for each.

    0 when it is gone.
    """
    total = 0
    with suppress(psutil.Error):
        leader = psutil.Process(pid)
        for process in (leader, *leader.children(recursive=True)):
            with suppress(psutil.Error):
                total += process.memory_info().rss
    return total / GIB
