"""CPU time and memory of a server: of some processes and all that descend from them."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

SAMPLE_S = 0.5
MB = 1e6


@dataclass(frozen=True)
class Usage:
    """What processes used in a time. None: there was nobody to look at.

    Peaks are of the sum over all of them: RSS counts what processes share once for each of them, PSS once in all.
    peak_process_mb: RSS of the largest one, which of a server is a worker.
    """

    cpu_s: float | None = None
    peak_rss_mb: float | None = None
    peak_process_mb: float | None = None
    peak_pss_mb: float | None = None


class UsageWatch:
    """Watches the trees of some processes while it is open; `begin` and `end` enclose the time that is measured.

    Only what is quick is read inside it: this process shares its cores with the server and serves its connections.
    So the tree is looked up, and PSS read, when the watch opens and closes; RSS is sampled from a thread.
    """

    def __init__(self, roots: Sequence[int]) -> None:
        self._roots = roots
        self._processes: list[psutil.Process] = []
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample_rss, daemon=True)
        self._peak_rss, self._peak_process, self._peak_pss = 0.0, 0.0, 0.0
        self._cpu_begin_s, self._cpu_s = 0.0, 0.0

    def __enter__(self) -> "UsageWatch":
        self._processes = find_processes(self._roots)
        self._peak_pss = sum(self._read(read_pss))
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._sampler.join()
        self._peak_pss = max(self._peak_pss, sum(self._read(read_pss)))

    def begin(self) -> None:
        self._peak_rss, self._peak_process = 0.0, 0.0
        self._cpu_begin_s = sum(self._read(read_cpu_s))

    def end(self) -> None:
        self._processes = find_processes(self._roots)  # a worker may have been replaced
        self._cpu_s = sum(self._read(read_cpu_s)) - self._cpu_begin_s
        self._note_rss()

    @property
    def usage(self) -> Usage:
        if not self._processes:
            return Usage()
        rss, process, pss = (round(peak / MB, 1) for peak in (self._peak_rss, self._peak_process, self._peak_pss))
        return Usage(self._cpu_s, rss, process, pss or None)

    def _sample_rss(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            self._note_rss()

    def _note_rss(self) -> None:
        sizes = self._read(lambda process: float(process.memory_info().rss))
        self._peak_rss = max(self._peak_rss, sum(sizes))
        self._peak_process = max(self._peak_process, *sizes, 0.0)

    def _read(self, read: Callable[[psutil.Process], float]) -> list[float]:
        values = []
        for process in list(self._processes):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # it has just ended, or is another user's
                values.append(read(process))
        return values


def find_processes(roots: Sequence[int]) -> list[psutil.Process]:
    """Return these processes and their descendants; those that have ended are left out."""
    found = {}
    for root in roots:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(root)
            found.update({member.pid: member for member in (process, *process.children(recursive=True))})
    return list(found.values())


def read_cpu_s(process: psutil.Process) -> float:
    """Read user and system time so far, with that of children that have ended."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def read_pss(process: psutil.Process) -> float:
    """Read PSS, 0 where the system does not tell."""
    return float(getattr(process.memory_full_info(), "pss", 0))
