"""What a worker counts and times, in files that outlive it; an exporter beside the server sums those of all workers.

The files are those of `prometheus_client` for several processes. Their values are added up here and written once a
batch: its own objects would take a lock and a look at the process for each. No label comes from a request.
"""

import fcntl
import logging
import math
import os
import sys
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from vision_serving.answers.responses import ModelIdentity, Response
from vision_serving.errors import RequestError
from vision_serving.results.outcome import Outcome, name_outcome
from vision_serving.timings import StageTimings
from vision_serving.worker.correlation import STARTED_HEADER, read_time

logger = logging.getLogger(__name__)

METRICS_FOLDER = "VISION_SERVING_METRICS_FOLDER"  # of the environment: where workers leave their files
FILE_BYTES = 1 << 17  # several times what the labels of one model take; a handler may raise ever new types of errors
HEAD_BYTES, ENTRY_BYTES = 8, 28  # of such a file; of a value, beside its key
NO_MODEL = ModelIdentity()
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
BOUND_NAMES = {bound: str(bound) for bound in (*SECONDS, *SIZES)} | {math.inf: "+Inf"}
HELP = {
    "vision_requests": "Answers that workers gave, by HTTP status and, of failures, the error's type.",
    "vision_images": "Images in requests that workers answered, by what came of each.",
    "vision_worker_starts": "Worker processes that began to load the model.",
    "vision_worker_restarts": "Worker processes that began in the place of one that had ended.",
    "vision_stage_duration_seconds": "Seconds that each stage took of a batch.",
    "vision_batch_duration_seconds": "Seconds from a batch's arrival at the worker to its answers.",
    "vision_request_queue_seconds": "Seconds from the front's question to the worker's batch.",
    "vision_batch_size": "Requests in a batch.",
}
Labels: TypeAlias = tuple[tuple[str, str], ...]


class WorkerMetrics:
    """One worker's. Without a folder, without `prometheus_client`, and after a failure, all of it does nothing."""

    def __init__(self, files: "Mapping[str, _File] | None" = None, model: ModelIdentity = NO_MODEL) -> None:
        self._files = files
        self._of_model = (("model", model.name), ("version", model.version))

    @classmethod
    def of(cls, model: ModelIdentity) -> "WorkerMetrics":
        """Open this process's files, and count its start. A failure is a line in the log."""
        folder = os.environ.get(METRICS_FOLDER)
        if not folder:
            return cls()
        try:
            name = f"{os.getpid()}-{time.time_ns()}.db"  # a process may get the number of one that has ended
            found = cls({kind: _File(Path(folder) / f"{kind}_{name}") for kind in ("counter", "histogram")}, model)
            found._begin_at_zero()
            found._count_start(Path(folder))
            found._write()
        except Exception as error:  # of any kind: counting is worth no start
            logger.error("this worker counts nothing for metrics: %s: %s", type(error).__name__, error)
            return cls()
        return found

    def count_batch(
        self,
        headers: Sequence[Mapping[str, Any]],
        outcomes: Sequence[Outcome],
        responses: Sequence[Response],
        timings: StageTimings,
        started_s: float,
    ) -> None:
        """Count a batch and its times; started_s: of time.perf_counter, when it came. Never raises."""
        if self._files is None:
            return
        try:
            self._count_batch(headers, outcomes, responses, timings, time.perf_counter() - started_s)
        except Exception as error:
            logger.error("this worker counts no more for metrics: %s: %s", type(error).__name__, error)
            self._files = None

    def _begin_at_zero(self) -> None:
        """Write each count that is known of: what appears with its first event has not risen, for a reader."""
        for error in (None, *_all_subclasses(RequestError)):
            name = "" if error is None else error.__name__
            status = "200" if error is None else str(error.status)
            self._count("vision_requests", (("status", status), ("error", name)), 0)
            self._count("vision_images", (("outcome", name or "predicted"),), 0)

    def _count_start(self, folder: Path) -> None:
        """Count this process; as a restart where TorchServe's worker, known by its socket, began before."""
        self._count("vision_worker_starts", (), 1)
        socket = Path(sys.argv[sys.argv.index("--sock-name") + 1]).name if "--sock-name" in sys.argv else ""
        seen = folder / f"seen{socket}"
        self._count("vision_worker_restarts", (), int(bool(socket) and seen.exists()))
        seen.touch(mode=0o600)

    def _write(self) -> None:
        assert self._files is not None
        for file in self._files.values():
            file.write()

    def _count_batch(
        self,
        headers: Sequence[Mapping[str, Any]],
        outcomes: Sequence[Outcome],
        responses: Sequence[Response],
        timings: StageTimings,
        elapsed_s: float,
    ) -> None:
        for (status, error), count in Counter((each.status, each.error) for each in responses).items():
            self._count("vision_requests", (("status", str(status)), ("error", error)), count)
        images = Counter(name_outcome(item) for outcome in outcomes for item in outcome.items)
        for outcome, count in images.items():
            self._count("vision_images", (("outcome", outcome),), count)
        for stage, milliseconds in timings.milliseconds.items():
            self._observe("vision_stage_duration_seconds", (("stage", stage),), milliseconds / 1000, SECONDS)
        self._observe("vision_batch_duration_seconds", (), elapsed_s, SECONDS)
        self._observe("vision_batch_size", (), len(responses), SIZES)
        now = time.time()
        for head in headers:
            told = (text for name, text in head.items() if name.lower() == STARTED_HEADER)
            asked_s = read_time(next(told, None), now)
            if asked_s is not None:
                waited_s = max(0.0, now - elapsed_s - asked_s)
                self._observe("vision_request_queue_seconds", (), waited_s, SECONDS)
        self._write()

    def _count(self, name: str, labels: Labels, amount: float) -> None:
        assert self._files is not None
        self._files["counter"].add(name, f"{name}_total", self._of_model + labels, amount)

    def _observe(self, name: str, labels: Labels, value: float, bounds: Sequence[float]) -> None:
        """Write what `prometheus_client` does of a histogram: the sum, and one bucket alone, which a reader adds up."""
        assert self._files is not None
        file, labels = self._files["histogram"], self._of_model + labels
        if not file.has(f"{name}_sum", labels):
            for bound in (*bounds, math.inf):
                file.add(name, f"{name}_bucket", (*labels, ("le", BOUND_NAMES[bound])), 0)
        file.add(name, f"{name}_sum", labels, value)
        position = bisect_left(bounds, value)
        bound = bounds[position] if position < len(bounds) else math.inf
        file.add(name, f"{name}_bucket", (*labels, ("le", BOUND_NAMES[bound])), 1)


class _File:
    """Values of one kind, written at the end of each batch: nothing is lost with the process, however it ends.

    Its lock says that the process lives. Its space is taken at once, so that a disk that is full later costs no count.
    What is written comes from memory of its own: a file that somebody cuts or damages would end a process that maps it,
    and the next batch mends it.
    """

    def __init__(self, path: Path) -> None:
        from prometheus_client.mmap_dict import MmapedDict, mmap_key  # an archive is served without it, too

        self._make_key = mmap_key
        self._lock = path.open("xb", buffering=0)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX)  # while it is empty: no reader takes it for an ended process's
            os.posix_fallocate(self._lock.fileno(), 0, FILE_BYTES)
            self._stored = MmapedDict(str(path))  # type: ignore[no-untyped-call]
        except BaseException:
            path.unlink()  # it would hold a place on a disk that has none
            raise
        self._stored._m.close()
        self._content = bytearray(FILE_BYTES)
        self._stored._m = self._content  # type: ignore[assignment]
        self._keys: dict[tuple[str, Labels], str] = {}
        self._values: dict[str, float] = {}
        self._written = 0

    def has(self, sample: str, labels: Labels) -> bool:
        return (sample, labels) in self._keys

    def add(self, name: str, sample: str, labels: Labels, amount: float) -> None:
        """Add to a value. One that there is no room for is not counted."""
        key = self._keys.get((sample, labels))
        if key is None:
            names, values = [key for key, _ in labels], [value for _, value in labels]
            key = self._make_key(name, sample, names, values, HELP[name])
            if self._stored._used + len(key) + ENTRY_BYTES > FILE_BYTES:
                return
            self._keys[sample, labels] = key
        value = self._values[key] = self._values.get(key, 0.0) + amount
        self._stored.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]

    def write(self) -> None:
        """Write all values. Of new ones, how long they are comes last: no reader expects what is not there yet."""
        used, content = self._stored._used, memoryview(self._content)
        if used != self._written:
            os.pwrite(self._lock.fileno(), content[HEAD_BYTES:used], HEAD_BYTES)
            self._written = used
        os.pwrite(self._lock.fileno(), content[:used], 0)


def _all_subclasses(root: type[RequestError]) -> Iterator[type[RequestError]]:
    for child in root.__subclasses__():
        yield child
        yield from _all_subclasses(child)
