"""Memory and file descriptors of a server's processes over time, and how fast they grow."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import psutil

from mar_tools.load_testing.processes import MB, find_processes

SAMPLE_S = 5.0


@dataclass
class Curve:
    """Of one process. moments: seconds since the begin. memory_mb: USS, its own pages alone: those that it shares with
    others are divided among however many these are (PSS), and so change when a process elsewhere begins or ends.
    """

    name: str
    pid: int
    moments: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def growth_mb_per_h(self, warm_up_s: float) -> float:
        """Return the Theil-Sen slope, the median over all pairs of samples: single outliers do not move it."""
        late = np.asarray(self.moments) >= warm_up_s
        hours, memory = np.asarray(self.moments)[late] / 3600, np.asarray(self.memory_mb)[late]
        if len(hours) < 2:
            return 0.0
        first, second = np.triu_indices(len(hours), 1)
        return float(np.median((memory[second] - memory[first]) / (hours[second] - hours[first])))

    def more_descriptors(self, warm_up_s: float) -> float:
        """Return the median of the last third over that of the first third after the warm-up."""
        counts = [count for moment, count in zip(self.moments, self.descriptors, strict=True) if moment >= warm_up_s]
        third = max(1, len(counts) // 3)
        return float(np.median(counts[-third:]) - np.median(counts[:third])) if counts else 0.0


class ProcessSampler:
    """Samples a frontend and its workers while it is open."""

    def __init__(self, root: int, sample_s: float = SAMPLE_S) -> None:
        self.curves: dict[int, Curve] = {}
        self._root, self._sample_s = root, sample_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "ProcessSampler":
        self._begin = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(self._sample_s):
            for process in find_processes([self._root]):
                self._note(process)

    def _note(self, process: psutil.Process) -> None:
        try:
            memory, descriptors = process.memory_full_info().uss, process.num_fds()
        except psutil.Error:  # it has just ended; whether one did is not judged here
            return
        name = "frontend" if process.pid == self._root else f"worker {len(self.curves)}"
        curve = self.curves.setdefault(process.pid, Curve(name, process.pid))
        curve.moments.append(time.perf_counter() - self._begin)
        curve.memory_mb.append(memory / MB)
        curve.descriptors.append(descriptors)


def percentile_ms(latencies_s: Sequence[float], percent: float) -> float:
    return float(np.percentile(np.asarray(latencies_s) * 1000, percent))
