"""CPU time and memory of a server: of some processes and all that descend from them."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

SAMPLE_S = 0.5
MB = 1e6


@dataclass(frozen=True)
class Usage:
    """What processes used in a time. None: there was nobody to look at.

    Peaks are of the sum over all of them: RSS counts what processes share once for each of them, PSS once in all.
    peak_process_mb: RSS of the largest one, which of a server is a worker. root_cpu_s: of the processes that were
    named, without their descendants: of TorchServe, its frontend. client_cpu_s: of this process, which asks.
    page_faults: that needed no disk. preemptions: how often one lost its core before it gave it up.
    """

    cpu_s: float | None = None
    peak_rss_mb: float | None = None
    peak_process_mb: float | None = None
    peak_pss_mb: float | None = None
    root_cpu_s: float | None = None
    client_cpu_s: float | None = None
    page_faults: float | None = None
    preemptions: float | None = None


class Counters(NamedTuple):
    """Of processes, since they began."""

    cpu_s: float = 0.0
    root_cpu_s: float = 0.0
    client_cpu_s: float = 0.0
    page_faults: float = 0.0
    preemptions: float = 0.0


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
        self._begin, self._end = Counters(), Counters()

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
        self._begin = self._count()

    def end(self) -> None:
        self._processes = find_processes(self._roots)  # a worker may have been replaced
        self._end = self._count()
        self._note_rss()

    @property
    def usage(self) -> Usage:
        if not self._processes:
            return Usage()
        rss, process, pss = (round(peak / MB, 1) for peak in (self._peak_rss, self._peak_process, self._peak_pss))
        spent = [end - begin for begin, end in zip(self._begin, self._end, strict=True)]
        return Usage(spent[0], rss, process, pss or None, *spent[1:])

    def _count(self) -> Counters:
        return Counters(
            sum(self._read(read_cpu_s)),
            sum(self._read(lambda process: read_cpu_s(process) if process.pid in self._roots else 0.0)),
            time.process_time(),
            sum(self._read(read_page_faults)),
            sum(self._read(lambda process: float(process.num_ctx_switches().involuntary))),
        )

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


def read_page_faults(process: psutil.Process) -> float:
    """Read how many pages the kernel gave without reading a disk, 0 where the system does not tell."""
    stat = Path(f"/proc/{process.pid}/stat")
    try:
        return float(stat.read_text().rpartition(")")[2].split()[7])  # minflt, the tenth field; proc(5)
    except OSError:
        return 0.0


def read_pss(process: psutil.Process) -> float:
    """Read PSS, 0 where the system does not tell."""
    return float(getattr(process.memory_full_info(), "pss", 0))
