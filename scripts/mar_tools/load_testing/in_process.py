"""P: the same work without a server. Processes that turn JPEG bytes into JSON bytes in a loop, with a served model's
artifact and code. What a served model lacks of P is what serving costs."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mar_tools.asking import AskedProcess, ProcessLostError, start_asked_process
from mar_tools.load_testing.answers import open_export
from mar_tools.load_testing.measurement import Measurement, Record, Window, measure_records
from mar_tools.load_testing.processes import UsageWatch
from mar_tools.load_testing.targets import prepare_requests
from vision_serving.errors import VisionServingError

PROCESS = "mar_tools.load_testing.in_process_loop"
WARM_UP_S = 1.0
START_S = 0.2  # until all processes know when to begin
TIMEOUT_S = 600.0


class InProcessError(VisionServingError):
    """A process of the loop could not do its work; the message has its reason."""


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
        paths = [Path(pictures) / f"{number}.jpg" for number in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            path.write_bytes(image)
        job = {"folder": str(folder), "images": list(map(str, paths)), "batch_size": batch_size}
        job |= {"processes": processes, "threads": threads}
        with _start_processes(Path(pictures), processes) as loop, ThreadPoolExecutor(processes) as pool:
            list(pool.map(lambda process: process.ask(job), loop))
            with UsageWatch([process.pid for process in loop]) as watch:
                batches, window = _run_window(loop, pool, warm_up_s, duration_s, watch)
    records = [
        Record(0, batch["started"], batch["finished"], status, b"", str(len(batch["statuses"])), batch["timing"])
        for batch in batches
        for status in batch["statuses"]
    ]
    until = max([window.end, *(record.finished for record in records)])
    return measure_records(records, prepare_requests(images), Window(window.start, until), watch.usage)


@contextmanager
def _start_processes(folder: Path, count: int) -> Iterator[list[AskedProcess]]:
    """Start processes that wait for their job; gone at the end. folder: for what they say. Raises InProcessError."""
    with ExitStack() as stack:
        logs = [folder / f"{number}.log" for number in range(count)]
        loop = [stack.enter_context(start_asked_process(PROCESS, log, TIMEOUT_S)) for log in logs]
        try:
            yield loop
        except ProcessLostError as error:
            raise InProcessError(f"the model in process: {error}") from error


def _run_window(
    loop: Sequence[AskedProcess], pool: ThreadPoolExecutor, warm_up_s: float, duration_s: float, watch: UsageWatch
) -> tuple[list[dict[str, Any]], Window]:
    """Return the batches that count; all processes work before and after the window too."""
    start = time.perf_counter() + START_S + warm_up_s
    window = Window(start, start + duration_s)
    answers = [pool.submit(process.ask, asdict(window)) for process in loop]
    time.sleep(max(0.0, window.start - time.perf_counter()))
    watch.begin()
    time.sleep(max(0.0, window.end - time.perf_counter()))
    watch.end()
    return [batch for answer in answers for batch in answer.result()["batches"]], window
