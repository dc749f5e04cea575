"""How long each stage of a batch took."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class StageTimings:
    """Milliseconds per stage of one batch, added up when a stage runs more than once."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, (time.perf_counter() - started) * 1000)

    def add(self, stage: str, milliseconds: float) -> None:
        self.milliseconds[stage] = self.milliseconds.get(stage, 0.0) + milliseconds

    def add_shares(self, elapsed: float, parts: Sequence["StageTimings"]) -> None:
        """Divide `elapsed` ms, in which several threads ran, among the stages as they divide the threads' time."""
        stages: dict[str, float] = {}
        for part in parts:
            for stage, milliseconds in part.milliseconds.items():
                stages[stage] = stages.get(stage, 0.0) + milliseconds
        total = sum(stages.values())
        for stage, milliseconds in stages.items():
            self.add(stage, elapsed * milliseconds / total)

    def server_timing(self) -> str:
        """Return the value of a `Server-Timing` header (W3C Server Timing)."""
        return ", ".join(f"{stage};dur={elapsed:.2f}" for stage, elapsed in self.milliseconds.items())
