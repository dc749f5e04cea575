"""What is tried: how a model can be served on so many cores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MAX_WORKERS = 16  # of one model; each holds a copy of it
MAX_BATCH_SIZE = {"cpu": 32, "cuda": 128}
DELAYS_MS = (1, 2, 5, 10, 20, 50)
DELAY_SHARE = 0.5  # of the latency bound: the rest is for the model
WORKERS_PER_CORE = 2  # threads of all workers: one may decode while the other one computes
WORKERS_PER_GPU = (1, 2, 3, 4, 6, 8)


@dataclass(frozen=True)
class Settings:
    """Of one model. threads: of the engine in each worker."""

    workers: int
    threads: int
    batch_size: int
    max_batch_delay_ms: int

    def __str__(self) -> str:
        workers = f"{self.workers} worker{'s' * (self.workers > 1)} x {self.threads} thread{'s' * (self.threads > 1)}"
        return f"{workers}, batch {self.batch_size}, delay {self.max_batch_delay_ms} ms"

    def as_properties(self) -> dict[str, Any]:
        """Name the settings as `models` in config.properties does."""
        return {
            "minWorkers": self.workers,
            "maxWorkers": self.workers,
            "threads": self.threads,
            "batchSize": self.batch_size,
            "maxBatchDelay": self.max_batch_delay_ms,
        }


@dataclass(frozen=True)
class Space:
    """Choices, each ascending. plans: workers and the threads of each."""

    cores: int
    plans: tuple[tuple[int, int], ...]
    batch_sizes: tuple[int, ...]
    delays_ms: tuple[int, ...]

    def settings(self) -> list[Settings]:
        """Return all settings: with a batch size of 1 nothing waits, so that the least delay stands for all."""
        return [
            Settings(*plan, batch_size, delay)
            for plan in self.plans
            for batch_size in self.batch_sizes
            for delay in (self.delays_ms if batch_size > 1 else self.delays_ms[:1])
        ]


def new_space(
    cores: int,
    gpus: int,
    p99_ms: float,
    current: Settings,
    batch_sizes: Sequence[int] | None = None,
    delays_ms: Sequence[int] | None = None,
) -> Space:
    """Return the space, with `current` in it. gpus: 0 for the CPU. batch_sizes, delays_ms: None for a default."""
    on_gpus = [(gpus * workers, max(1, cores // (gpus * workers))) for workers in WORKERS_PER_GPU if gpus]
    plans = {(current.workers, current.threads), *(on_gpus or _plans(cores))}  # on a GPU threads only decode
    if batch_sizes is None:
        batch_sizes = _powers_of_two(MAX_BATCH_SIZE["cuda" if gpus else "cpu"])
    if delays_ms is None:
        delays_ms = [DELAYS_MS[0], *(delay for delay in DELAYS_MS if delay <= DELAY_SHARE * p99_ms)]
    sizes, delays = {current.batch_size, *batch_sizes}, {current.max_batch_delay_ms, *delays_ms}
    return Space(cores, tuple(sorted(plans)), tuple(sorted(sizes)), tuple(sorted(delays)))


def first_guesses(space: Space, current: Settings) -> list[Settings]:
    """Return what is tried first: as it is now, and the fewest and the most workers that share the cores fairly."""
    fair = [plan for plan in space.plans if plan == (plan[0], space.cores // plan[0])] or list(space.plans)
    middle = space.batch_sizes[len(space.batch_sizes) // 2]
    guesses = [current, *(Settings(*plan, middle, space.delays_ms[0]) for plan in (fair[0], fair[-1]))]
    return list(dict.fromkeys(guesses))


def _plans(cores: int) -> list[tuple[int, int]]:
    """Return fair shares and more threads. With one worker more than cores, each has work while a batch travels."""
    most = WORKERS_PER_CORE * cores
    powers = _powers_of_two(min(most, MAX_WORKERS))
    return [
        (workers, threads)
        for workers in sorted({*(min(count, MAX_WORKERS) for count in (cores, cores + 1)), *powers})
        for threads in {cores // workers, *_powers_of_two(cores)} - {0}
        if cores // 2 <= workers * threads <= most
    ]


def _powers_of_two(most: int) -> list[int]:
    """Return powers up to `most`, which is the last one even where it is none."""
    powers = [2**exponent for exponent in range(most.bit_length()) if 2**exponent <= most]
    return powers if powers[-1] == most else [*powers, most]
