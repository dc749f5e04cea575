"""P: the same work without a server. Processes that turn JPEG bytes into JSON bytes in a loop, with a served model's
artifact and code. What a served model lacks of P is what serving costs."""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mar_tools.building.timing_worker import TimingWorker, WorkerLostError
from mar_tools.child_processes import isolated, python_command
from mar_tools.load_testing.answers import open_export
from mar_tools.load_testing.measurement import Measurement, Record, Window, summarise
from mar_tools.load_testing.processes import UsageWatch
from mar_tools.load_testing.targets import prepare_requests
from vision_serving.errors import VisionServingError

WARM_UP_S = 1.0
START_S = 0.2  # until all processes know when to begin
TIMEOUT_S = 600.0


class InProcessError(VisionServingError):
    """A process of the loop could not do its work; the message has its reason."""


@dataclass(frozen=True)
class LoopProcess:
    """One process of the loop."""

    pid: int
    worker: TimingWorker

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Raises InProcessError."""
        try:
            return self.worker.ask(question)
        except WorkerLostError as error:
            raise InProcessError(f"the model in process: {error}") from error


def measure_in_process(
    export: Path,
    images: Sequence[bytes],
    processes: int,
    threads: int,
    batch_size: int,
    duration_s: float,
    warm_up_s: float = WARM_UP_S,
) -> Measurement:
    """Measure so many processes, each with an engine of so many threads, that answer batch after batch without a pause.

    export: an export folder or a `.mar`. A latency is that of a batch. Raises ConfigError or InProcessError.
    """
    with open_export(export) as folder, tempfile.TemporaryDirectory(prefix="images-") as pictures:
        paths = _write_images(Path(pictures), images)
        job = {"folder": str(folder), "images": paths, "batch_size": batch_size}
        with _start_processes(Path(pictures), processes) as loop, ThreadPoolExecutor(processes) as pool:
            list(pool.map(lambda process: process.ask({**job, "processes": processes, "threads": threads}), loop))
            with UsageWatch([process.pid for process in loop]) as watch:
                batches, window = _run_window(loop, pool, warm_up_s, duration_s, watch)
    records = [record for batch in batches for record in _read_batch(batch)]
    until = max([window.end, *(record.finished for record in records)])
    return summarise(records, prepare_requests(images), Window(window.start, until), watch.usage)


def _write_images(folder: Path, images: Sequence[bytes]) -> list[str]:
    paths = [folder / f"{number}.jpg" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(image)
    return [str(path) for path in paths]


@contextmanager
def _start_processes(folder: Path, count: int) -> Iterator[list[LoopProcess]]:
    """Start processes that wait for their job; gone at the end. folder: for what they say."""
    command = python_command("mar_tools.load_testing.in_process_loop")
    with ExitStack() as stack:
        loop = []
        for number in range(count):
            log = folder / f"{number}.log"
            errors = stack.enter_context(log.open("ab"))
            process = stack.enter_context(isolated(command, stdin=-1, stdout=-1, stderr=errors, bufsize=0))
            loop.append(LoopProcess(process.pid, TimingWorker(process, log, TIMEOUT_S)))
        yield loop


def _run_window(
    loop: Sequence[LoopProcess], pool: ThreadPoolExecutor, warm_up_s: float, duration_s: float, watch: UsageWatch
) -> tuple[list[dict[str, Any]], Window]:
    """Return the batches that count; all processes work before and after the window too."""
    start = time.perf_counter() + START_S + warm_up_s
    window = Window(start, start + duration_s)
    answers = [pool.submit(process.ask, {"start": window.start, "end": window.end}) for process in loop]
    time.sleep(max(0.0, window.start - time.perf_counter()))
    watch.begin()
    time.sleep(max(0.0, window.end - time.perf_counter()))
    watch.end()
    return [batch for answer in answers for batch in answer.result()["batches"]], window


def _read_batch(batch: Mapping[str, Any]) -> Iterator[Record]:
    for status in batch["statuses"]:
        times = batch["started"], batch["finished"]
        yield Record(0, *times, status, b"", str(len(batch["statuses"])), batch["timing"])
