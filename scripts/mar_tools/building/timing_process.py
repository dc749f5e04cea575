"""A process that times one export: `python -m mar_tools.building.timing_process`, JSON lines in and out.

The first line says what to load, each further one asks for a round. It ends with its input.
"""

import statistics
import sys
import time
import traceback
from collections.abc import Sequence
from itertools import islice

from mar_tools.asking import answer, own_output
from mar_tools.building.timing import Round, TimingJob
from mar_tools.images import read_image
from mar_tools.verification.observations import load_handler
from vision_serving.answers.responses import encode_response
from vision_serving.config import ImageLimits
from vision_serving.errors import VisionServingError
from vision_serving.handler import VisionHandler
from vision_serving.requests.payload import Payload


def main() -> None:
    answers = own_output()
    try:
        job = TimingJob.model_validate_json(sys.stdin.readline())
        started = time.perf_counter()
        handler = load_handler(job.folder, limits=ImageLimits())  # which verification has, too
        answer(answers, load_s=time.perf_counter() - started)
        payloads = [Payload(images=(read_image(path),)) for path in job.images]
        for line in iter(sys.stdin.readline, ""):
            answer(answers, images_per_s=measure_round(handler, payloads, Round.model_validate_json(line)))
    except Exception as error:  # the border: the parent makes it the reason of a row
        traceback.print_exc()
        answer(answers, problem=f"{type(error).__name__}: {error}"[:300])
        sys.exit(1)


def measure_round(handler: VisionHandler, payloads: Sequence[Payload], asked: Round) -> float:
    """Return images per second, the median over passes of the same images. The first batch is not counted."""
    batches = split_batches(payloads, asked.batch_size)
    answer_batch(handler, batches[0])  # caches and clocks are those of whoever had the turn before
    durations: list[float] = []
    while sum(durations) < asked.duration_s or not durations:
        started = time.perf_counter()
        for batch in batches:
            answer_batch(handler, batch)
        durations.append(time.perf_counter() - started)
    return len(batches) * asked.batch_size / statistics.median(durations)


def split_batches(payloads: Sequence[Payload], batch_size: int) -> list[list[Payload]]:
    """Return all payloads in full batches; the first ones again where the last batch has room."""
    count = -(-len(payloads) // batch_size) * batch_size
    endless = (payloads[index % len(payloads)] for index in range(count))
    return [list(islice(endless, batch_size)) for _ in range(count // batch_size)]


def answer_batch(handler: VisionHandler, batch: Sequence[Payload]) -> None:
    """Turn encoded images into JSON bytes. Raises VisionServingError: a fast wrong answer looks well in a table."""
    for response in [encode_response(outcome) for outcome in handler.predict(batch)]:
        if response.status != 200:
            raise VisionServingError(f"answered {response.status} to an image: {response.body[:200].decode()}")


if __name__ == "__main__":
    main()
