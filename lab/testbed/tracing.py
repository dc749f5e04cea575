"""What a worker's own lines and spans cost a request: CPU time of a process that does what follows an answer.

    python -m lab.testbed.tracing sampled model_store/digits.mar picture.png 2000 http://127.0.0.1:4318

It prints microseconds of all threads a request, in batches of one.
"""

import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mar_tools.archives.archive import extract_archive
from mar_tools.ray_serving.exchange import BatchContext, Request
from mar_tools.verification.observations import load_handler
from vision_serving.answers.responses import ModelIdentity
from vision_serving.timings import StageTimings
from vision_serving.worker.service import TorchServeHandler
from vision_serving.worker.tracing import Tracing

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"
BROKEN = b"no picture"
# Mode -> the header of a caller, whether traces are on, and whether the request fails.
MODES: dict[str, tuple[dict[str, str], bool, bool]] = {
    "off": ({"traceparent": f"{TRACEPARENT}01"}, False, False),
    "failed": ({}, False, True),
    "without_parent": ({}, True, False),
    "not_sampled": ({"traceparent": f"{TRACEPARENT}00"}, True, False),
    "sampled": ({"traceparent": f"{TRACEPARENT}01"}, True, False),
    "sampled_dead_receiver": ({"traceparent": f"{TRACEPARENT}01"}, True, False),
    "sampled_hanging_receiver": ({"traceparent": f"{TRACEPARENT}01"}, True, False),
}
FLUSHED_EVERY = 50  # requests: a queue of 2,048 spans never fills, where a receiver answers
WARM_UP = 200


def measure(mode: str, archive: Path, picture: bytes, count: int) -> float:
    """Return microseconds of CPU a request."""
    given, traced, fails = MODES[mode]
    now = time.time()
    front = {"X-Request-Id": "0123456789abcdef", "Accept": "*/*", "Content-Type": "image/png", "X-Forwarded-For": "::1"}
    times = {"X-Request-Arrived": f"t={now - 0.010:.3f}", "X-Request-Start": f"t={now - 0.008:.3f}"}
    request = Request({"body": BROKEN if fails else picture}, {**front, **times, **given})
    with tempfile.TemporaryDirectory() as folder:
        extract_archive(archive, Path(folder))
        handler: Any = load_handler(Path(folder))
        assert isinstance(handler, TorchServeHandler)
        if traced:
            handler.tracing = Tracing.of(ModelIdentity("digits", "1.0"), {"vision.backend": handler.config.backend})
            assert handler.tracing.is_on
        step = Step(handler, BatchContext("digits", {"model": {"modelVersion": "1.0"}}, {}, [request]))
        step.repeat(WARM_UP, mode)
        started = time.process_time()
        step.repeat(count, mode)
        return (time.process_time() - started) / count * 1e6


class Step:
    """What follows the answer to a batch, which is predicted once."""

    def __init__(self, handler: TorchServeHandler, context: BatchContext) -> None:
        self._handler, self._context, self._timings = handler, context, StageTimings()
        model = ModelIdentity("digits", "1.0")
        rows = [{"body": request.row["body"]} for request in context._requests]
        headers = [request.headers for request in context._requests]
        self._responses, self._outcomes = handler._respond(rows, headers, model, self._timings)

    def repeat(self, count: int, mode: str) -> None:
        for number in range(count):
            started_s = time.perf_counter()
            self._handler.tell(self._context, self._outcomes, self._responses, self._timings, started_s)
            if mode == "sampled" and number % FLUSHED_EVERY == FLUSHED_EVERY - 1:
                self._handler.tracing.flush(60)


def main() -> None:
    mode, archive, picture, count, receiver = sys.argv[1:]
    logging.basicConfig(filename=os.devnull, format="%(message)s", level=logging.INFO)  # as TorchServe's worker
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver
    print(measure(mode, Path(archive), Path(picture).read_bytes(), int(count)))


if __name__ == "__main__":
    main()
