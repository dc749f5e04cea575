"""One process of the in-process loop: `python -m mar_tools.load_testing.in_process_loop`, JSON lines in and out.

The first line says what to load; each further one a window of time, by time.perf_counter, whose batches it answers.
"""

import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import orjson

from mar_tools.asking import answer, own_output
from mar_tools.images import read_image
from mar_tools.load_testing.measurement import Window
from mar_tools.verification.observations import load_handler
from vision_serving.answers.responses import encode_response
from vision_serving.cores import plan_threads, usable_cores
from vision_serving.handler import VisionHandler
from vision_serving.requests.payload import Payload
from vision_serving.timings import StageTimings
from vision_serving.validation import StrictModel


class LoopJob(StrictModel):
    """What to load and how. threads: of each of so many processes."""

    folder: Path
    images: tuple[Path, ...]
    processes: int
    threads: int
    batch_size: int


def main() -> None:
    answers = own_output()
    try:
        job = LoopJob.model_validate_json(sys.stdin.readline())
        handler = load_handler(job.folder, plan_threads(usable_cores(), job.processes, job.threads))
        handler.warm_up(job.batch_size)
        batches = iterate_batches([read_image(path) for path in job.images], job.batch_size)
        answer(answers, ready=True)
        for line in iter(sys.stdin.readline, ""):
            answer(answers, batches=run_window(handler, batches, Window(**orjson.loads(line))))
    except Exception as error:  # the border: the parent gives it as the reason
        traceback.print_exc()
        answer(answers, problem=f"{type(error).__name__}: {error}"[:300])
        sys.exit(1)


def iterate_batches(images: Sequence[bytes], batch_size: int) -> Iterator[list[bytes]]:
    """Yield full batches, round and round."""
    for first in count(0, batch_size):
        yield [images[number % len(images)] for number in range(first, first + batch_size)]


def run_window(handler: VisionHandler, batches: Iterator[list[bytes]], window: Window) -> list[dict[str, Any]]:
    """Answer batches until the window ends. Return those that end in it, and the first one if none does."""
    counted: list[dict[str, Any]] = []
    finished = 0.0
    while finished < window.end or not counted:
        started = time.perf_counter()
        timings = StageTimings()
        outcomes = handler.predict([Payload(images=(image,)) for image in next(batches)], timings)
        statuses = [encode_response(outcome).status for outcome in outcomes]
        finished = time.perf_counter()
        if window.start <= finished <= window.end or (finished > window.end and not counted):
            timing = timings.server_timing()
            counted.append({"started": started, "finished": finished, "statuses": statuses, "timing": timing})
    return counted


if __name__ == "__main__":
    main()
