"""How long each stage of a batch took."""

import time
from collections.abc import Iterator
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
            elapsed = (time.perf_counter() - started) * 1000
            self.milliseconds[stage] = self.milliseconds.get(stage, 0.0) + elapsed

    def server_timing(self) -> str:
        """The value of a `Server-Timing` header (W3C Server Timing)."""
        return ", ".join(f"{stage};dur={elapsed:.2f}" for stage, elapsed in self.milliseconds.items())
