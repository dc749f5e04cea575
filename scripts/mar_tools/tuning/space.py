"""What is tried: how a model can be served on so many cores."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

MAX_WORKERS = 16  # of one model; each holds a copy of it
MAX_BATCH_SIZE = {"cpu": 32, "cuda": 128}
DELAYS_MS = (1, 2, 5, 10, 20, 50)
DELAY_SHARE = 0.5  # of the latency bound: the rest is for the model
WORKERS_PER_CORE = 2  # threads of all workers: one may decode while the other one computes
WORKERS_ON_GPU = (1, 2, 3, 4, 6, 8)


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
        """As `models` in config.properties names them."""
        return {
            "minWorkers": self.workers,
            "maxWorkers": self.workers,
            "threads": self.threads,
            "batchSize": self.batch_size,
            "maxBatchDelay": self.max_batch_delay_ms,
        }

    def as_document(self) -> Mapping[str, int]:
        return asdict(self)


@dataclass(frozen=True)
class Space:
    """Choices, each ascending. plans: workers and the threads of each."""

    plans: tuple[tuple[int, int], ...]
    batch_sizes: tuple[int, ...]
    delays_ms: tuple[int, ...]

    def settings(self) -> list[Settings]:
        """All there are: with a batch size of 1 nothing waits, so that the least delay stands for all."""
        return [
            Settings(*plan, batch_size, delay)
            for plan in self.plans
            for batch_size in self.batch_sizes
            for delay in (self.delays_ms if batch_size > 1 else self.delays_ms[:1])
        ]


def new_space(cores: int, device_type: str, p99_ms: float, current: Settings) -> Space:
    """current: always among the choices."""
    plans = {(current.workers, current.threads), *(_plans_on_gpu(cores) if device_type == "cuda" else _plans(cores))}
    sizes = {current.batch_size, *_powers_of_two(MAX_BATCH_SIZE[device_type])}
    delays = {DELAYS_MS[0], current.max_batch_delay_ms, *(d for d in DELAYS_MS if d <= DELAY_SHARE * p99_ms)}
    return Space(tuple(sorted(plans)), tuple(sorted(sizes)), tuple(sorted(delays)))


def first_guesses(cores: int, current: Settings) -> list[Settings]:
    """What is tried first: as it is now, one worker with all cores, and a worker on each core."""
    alone, each = Settings(1, cores, 8, 1), Settings(min(cores, MAX_WORKERS), max(1, cores // MAX_WORKERS), 4, 1)
    return list(dict.fromkeys((current, alone, each)))


def _plans(cores: int) -> list[tuple[int, int]]:
    most = WORKERS_PER_CORE * cores
    return [
        (workers, threads)
        for workers in sorted({min(cores, MAX_WORKERS), *_powers_of_two(min(most, MAX_WORKERS))})
        for threads in _powers_of_two(cores)
        if cores // 2 <= workers * threads <= most
    ]


def _plans_on_gpu(cores: int) -> list[tuple[int, int]]:
    """Threads only decode there: a fair share."""
    return [(workers, max(1, cores // workers)) for workers in WORKERS_ON_GPU]


def _powers_of_two(most: int) -> list[int]:
    """Up to `most`, which is the last one even where it is none."""
    powers = [2**exponent for exponent in range(most.bit_length()) if 2**exponent <= most]
    return powers if powers[-1] == most else [*powers, most]
