"""What samples of predictions cost a worker: CPU time of a process that keeps one request again and again.

    python -m lab.testbed.kept_predictions all model_store/digits.mar picture.png 2000

It prints microseconds a request, in batches of one.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mar_tools.archives.archive import extract_archive
from mar_tools.verification.observations import load_handler
from vision_serving.answers.responses import ModelIdentity
from vision_serving.requests.payload import parse_payload
from vision_serving.timings import StageTimings
from vision_serving.worker.sample_files import list_files
from vision_serving.worker.sample_settings import SampleSettings
from vision_serving.worker.sampling import MOST_WAITING, Sampler
from vision_serving.worker.service import TorchServeHandler

# Mode -> share of the requests, whether pictures are kept, and whose time counts: that of all threads, or of the one
# that answers.
MODES: dict[str, tuple[float, bool, Callable[[], float]]] = {
    "off": (0.0, False, time.process_time),
    "hundredth": (0.01, False, time.process_time),
    "all": (1.0, False, time.process_time),
    "all_pictures": (1.0, True, time.process_time),
    "all_answer": (1.0, False, time.thread_time),
}
WARM_UP = 200
PAUSE_S = 0.0005  # between two looks whether the thread that writes is done


def measure(mode: str, archive: Path, picture: bytes, count: int) -> float:
    """Return microseconds of CPU a request as the front sends it."""
    share, pictures, clock = MODES[mode]
    model = ModelIdentity("digits", "1.0")
    headers = {"X-Request-Id": "0123456789abcdef", "Accept": "*/*", "Content-Type": "image/png"}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as samples:
        extract_archive(archive, Path(folder))
        handler: Any = load_handler(Path(folder))
        assert isinstance(handler, TorchServeHandler)
        responses, outcomes = handler._respond([{"body": picture}], [headers], model, StageTimings())
        payloads = [parse_payload({"body": picture}, headers)]
        sampler = Sampler(SampleSettings(Path(samples) / "digits", share, pictures), model, handler.config.limits)
        for number in range(WARM_UP + count):
            if number == WARM_UP:
                started = clock()
            sampler.sample_batch(payloads, [headers], outcomes, responses)
            if number % (MOST_WAITING // 2) == 0:
                _wait_until_written(sampler)
        _wait_until_written(sampler)
        spent_s = clock() - started
        lines = sum(path.read_bytes().count(b"\n") for path in list_files(Path(samples) / "digits"))
        assert share < 1 or lines == WARM_UP + count, "some were left out"
        return spent_s / count * 1e6


def _wait_until_written(sampler: Sampler) -> None:
    while sampler._given != sampler._done:
        time.sleep(PAUSE_S)


def main() -> None:
    mode, archive, picture, count = sys.argv[1:]
    print(measure(mode, Path(archive), Path(picture).read_bytes(), int(count)))


if __name__ == "__main__":
    main()
