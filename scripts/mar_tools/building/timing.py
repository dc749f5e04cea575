"""Images per second of exports, from encoded bytes to JSON bytes in process: what a worker does without the network.

All are loaded at once, each in a process of its own that sleeps between its rounds, and take turns: A B C A B C ... A
machine that is slower for a while is slower for all of them. Who is far behind after a round is left out of the rest.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from mar_tools.asking import AskedProcess, ProcessLostError, start_asked_process
from mar_tools.building.trials import log_of
from vision_serving.validation import StrictModel

PROCESS = "mar_tools.building.timing_process"
TIMED_IMAGES = 4  # in one pass; more would make the rounds of slow models long
PROCESS_BYTES = 600e6  # of PyTorch and a runtime, without a model
COPIES = 2  # of the weights that a runtime holds: as loaded, and packed for its kernels
MEMORY_SHARE = 0.5  # of the machine's
CONTENDER_SHARE = 0.5  # of the fastest one's rate: noise does not make up for twice


class TimingJob(StrictModel):
    """The first line to a worker."""

    folder: Path
    images: tuple[Path, ...]


class Round(StrictModel):
    """Every further line: at least so many seconds with batches of that size."""

    batch_size: int
    duration_s: float


@dataclass
class Timing:
    """Of one export. `rates`: images per second of each round, by batch size. `problem`: why there are no more."""

    load_s: float | None = None
    rates: dict[int, list[float]] = field(default_factory=dict)
    problem: str = ""
    speedup: float | None = None

    def images_per_s(self) -> dict[str, float]:
        """Return medians over the rounds; nothing for an export that was lost on the way."""
        if self.problem:
            return {}
        return {str(size): float(f"{statistics.median(rates):.4g}") for size, rates in self.rates.items()}


@dataclass(frozen=True)
class TimingPlan:
    """What is asked of every export. `announce` hears before each turn whose it is, `skip` how many will not come."""

    images: tuple[Path, ...]
    batch_sizes: tuple[int, ...]
    rounds: int
    round_s: float
    timeout_s: float
    announce: Callable[[str], None]
    skip: Callable[[int], None]


def time_exports(
    sizes: Mapping[Path, float], baseline: Path, plan: TimingPlan, memory_bytes: float
) -> dict[Path, Timing]:
    """Time exports. sizes: bytes of each artifact. The speedups are over the baseline, in each group."""
    timings: dict[Path, Timing] = {}
    for group in group_by_memory(sizes, baseline, memory_bytes):
        timed = time_group(group, plan)
        for timing in timed.values():
            timing.speedup = speedup(timing, timed[baseline], max(plan.batch_sizes))
        timings = {**timed, **timings}  # of the baseline the first timing stands
    return timings


def group_by_memory(sizes: Mapping[Path, float], baseline: Path, memory_bytes: float) -> list[list[Path]]:
    """Put all exports into one group if they fit into half the memory, else groups that do, each with the baseline."""
    needs = {folder: PROCESS_BYTES + COPIES * size for folder, size in sizes.items()}
    room = MEMORY_SHARE * memory_bytes - needs[baseline]
    groups: list[list[Path]] = [[]]
    for folder in (folder for folder in sizes if folder != baseline):
        if groups[-1] and sum(needs[member] for member in groups[-1]) + needs[folder] > room:
            groups.append([])
        groups[-1].append(folder)
    return [[baseline, *group] for group in groups]


def time_group(folders: Sequence[Path], plan: TimingPlan) -> dict[Path, Timing]:
    timings = {folder: Timing() for folder in folders}
    with ExitStack() as stack:
        workers = {
            folder: stack.enter_context(start_asked_process(PROCESS, log_of(folder), plan.timeout_s))
            for folder in folders
        }
        for folder, worker in workers.items():
            plan.announce(f"load {folder.name}")
            load(folder, worker, timings[folder], plan)
        for _ in range(plan.rounds):
            left = contenders(timings, folders[0], max(plan.batch_sizes))
            plan.skip(len(folders) - len(left))
            for folder in left:
                plan.announce(f"time {folder.name}")
                run_round(workers[folder], timings[folder], plan)
    return timings


def contenders(timings: Mapping[Path, Timing], baseline: Path, batch_size: int) -> list[Path]:
    """Return the ones that get another round: the baseline, and any that was not lost and can still be the fastest."""
    healthy = {folder: timing for folder, timing in timings.items() if not timing.problem}
    rates = {folder: statistics.median(timing.rates[batch_size]) for folder, timing in healthy.items() if timing.rates}
    enough = CONTENDER_SHARE * max(rates.values(), default=0.0)
    return [folder for folder in healthy if folder == baseline or rates.get(folder, enough) >= enough]


def load(folder: Path, worker: AskedProcess, timing: Timing, plan: TimingPlan) -> None:
    """Load, and run every batch size once: the first batch of each may compile or allocate."""
    try:
        job = TimingJob(folder=folder, images=plan.images)
        timing.load_s = round(worker.ask(job.model_dump(mode="json"))["load_s"], 3)
        for batch_size in plan.batch_sizes:
            worker.ask(Round(batch_size=batch_size, duration_s=0).model_dump())
    except ProcessLostError as error:
        timing.problem = str(error)


def run_round(worker: AskedProcess, timing: Timing, plan: TimingPlan) -> None:
    try:
        for batch_size in plan.batch_sizes:
            asked = Round(batch_size=batch_size, duration_s=plan.round_s)
            timing.rates.setdefault(batch_size, []).append(worker.ask(asked.model_dump())["images_per_s"])
    except ProcessLostError as error:
        timing.problem = str(error)


def speedup(timing: Timing, baseline: Timing, batch_size: int) -> float | None:
    """Return the ratio of the medians over all rounds; None where one of them was lost."""
    if timing.problem or baseline.problem:
        return None
    own, base = (statistics.median(side.rates[batch_size]) for side in (timing, baseline))
    return round(own / base, 3)
