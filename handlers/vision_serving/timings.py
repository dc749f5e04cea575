"""How long each stage of a batch took."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class StageTimings:
    """Milliseconds per stage of one batch, added up when a stage runs more than once.

    started: when each stage first began, in seconds of `time.perf_counter`.
    """

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self.started: dict[str, float] = {}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, (time.perf_counter() - started) * 1000, started)

    def add(self, stage: str, milliseconds: float, started: float) -> None:
        """Count `milliseconds` of a stage that began at `started`."""
        self.milliseconds[stage] = self.milliseconds.get(stage, 0.0) + milliseconds
        self.started.setdefault(stage, started)

    def add_shares(self, elapsed: float, parts: Sequence["StageTimings"]) -> None:
        """Divide the last `elapsed` ms, in which several threads ran, among the stages as they divide their time.

        The stages stand one after the other then, as if all images had passed the first before the second.
        """
        stages: dict[str, float] = {}
        for part in parts:
            for stage, milliseconds in part.milliseconds.items():
                stages[stage] = stages.get(stage, 0.0) + milliseconds
        total = sum(stages.values())
        started = time.perf_counter() - elapsed / 1000
        for stage, milliseconds in stages.items():
            share = elapsed * milliseconds / total
            self.add(stage, share, started)
            started += share / 1000

    def server_timing(self) -> str:
        """Return the value of a `Server-Timing` header (W3C Server Timing)."""
        return ", ".join(f"{stage};dur={elapsed:.2f}" for stage, elapsed in self.milliseconds.items())
