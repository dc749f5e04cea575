"""How far a long run is: a bar on a terminal, a line a minute elsewhere, both with the rate and the time left."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from mar_tools.predicting.chunks import Tell, Written
from mar_tools.terminal import LOG_EVERY_S, is_watched, print_line
from vision_serving.errors import VisionServingError


class Counter:
    """Counts items in a thread of its own, while the first of them are worked on. `total`: None until it has."""

    def __init__(self, items: Iterable[object]) -> None:
        self.total: int | None = None
        self._thread = threading.Thread(target=self._count, args=(items,), daemon=True)
        self._thread.start()

    def _count(self, items: Iterable[object]) -> None:
        try:
            self.total = sum(1 for _ in items)
        except (VisionServingError, OSError):
            return  # whoever works on the items meets the same, and says it

    def wait(self, timeout_s: float) -> int | None:
        """Return the total if it is known within so many seconds."""
        self._thread.join(timeout_s)
        return self.total


@contextmanager
def show_rate(title: str, already: int, total: Callable[[], int | None]) -> Iterator[Tell]:
    """Give what is told of each shard. already: so many pictures have their rows from an earlier run."""
    started, console, done, told = time.monotonic(), Console(stderr=True), 0, time.monotonic()

    def describe() -> str:
        rate = done / max(1e-9, time.monotonic() - started)
        whole = total()
        of_all = "" if whole is None else f" of {whole:,}"
        left = "" if whole is None or not rate else f", {_duration((whole - already - done) / rate)} left"
        return f"{already + done:,}{of_all}, {rate:,.1f}/s{left}"

    if not is_watched():

        def log(written: Written) -> None:
            nonlocal done, told
            done += written.rows
            if time.monotonic() - told >= LOG_EVERY_S:
                told = time.monotonic()
                print_line(f"{title}: {describe()}")

        yield log
        return
    columns = (TextColumn(title), BarColumn(bar_width=None), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)

        def show(written: Written) -> None:
            nonlocal done
            done += written.rows
            progress.update(task, description=describe(), completed=already + done, total=total())

        yield show


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=max(0, round(seconds))))
