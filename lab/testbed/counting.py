"""What counting for metrics costs a worker: CPU time of a process that counts one batch again and again.

    python -m lab.testbed.counting 8 model_store/digits.mar picture.png 2000

It prints microseconds of all threads a batch of 8.
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mar_tools.archives.archive import extract_archive
from mar_tools.verification.observations import load_handler
from vision_serving.answers.responses import ModelIdentity
from vision_serving.timings import StageTimings
from vision_serving.worker.metrics import METRICS_FOLDER, WorkerMetrics
from vision_serving.worker.service import TorchServeHandler

BATCH_SIZES = (1, 8)
WARM_UP = 200
MODEL = ModelIdentity("digits", "1.0")


def measure(batch_size: int, archive: Path, picture: bytes, count: int) -> float:
    """Return microseconds of CPU a batch of requests as the front sends them."""
    front = {"X-Request-Id": "0123456789abcdef", "Accept": "*/*", "Content-Type": "image/png", "X-Forwarded-For": "::1"}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as counts:
        extract_archive(archive, Path(folder))
        handler: Any = load_handler(Path(folder))
        assert isinstance(handler, TorchServeHandler)
        headers = [{**front, "X-Request-Start": f"t={time.time() - 0.008:.3f}"}] * batch_size
        timings = StageTimings()
        responses, outcomes = handler._respond([{"body": picture}] * batch_size, headers, MODEL, timings)
        os.environ[METRICS_FOLDER] = counts
        metrics = WorkerMetrics.of(MODEL)
        assert list(Path(counts).glob("*.db"))
        for number in range(WARM_UP + count):
            if number == WARM_UP:
                started = time.process_time()
            metrics.count_batch(headers, outcomes, responses, timings, time.perf_counter())
        return (time.process_time() - started) / count * 1e6


def main() -> None:
    batch_size, archive, picture, count = sys.argv[1:]
    print(measure(int(batch_size), Path(archive), Path(picture).read_bytes(), int(count)))


if __name__ == "__main__":
    main()
