"""The process of one row: the build's trial and, where that is verified, the time of an image.

python -m lab.sweeping.trial_process FOLDER
"""

import statistics
import time
from pathlib import Path

from mar_tools.building.trial_process import answer_trial, describe_problem, perform
from mar_tools.building.trials import CandidateTrial, TrialResult
from mar_tools.command_line import run
from mar_tools.images import choose_images
from mar_tools.verification.gate import read_report
from mar_tools.verification.observations import load_handler
from vision_serving.config import ImageLimits
from vision_serving.pictures.decoding import decode_image

TIMED_S = 0.3  # up to ten times that for three runs
TIMED_RUNS = 3
SLOW_TIMED_S = 3.0


def main() -> None:
    answer_trial(perform_and_time)


def perform_and_time(trial: CandidateTrial) -> TrialResult:
    result = perform(trial)
    if result.problem is not None or not read_report(trial.folder)["passed"]:
        return result
    try:
        return result.model_copy(update={"figures": measure_ms(trial.folder)})
    except Exception as error:  # a backend that passes and cannot be timed is a row with its reason, as in `perform`
        return describe_problem(error)


def measure_ms(folder: Path) -> dict[str, float | None]:
    """Return the median over some runs of the backend on one image, from pixels to outputs."""
    handler = load_handler(folder)
    image = decode_image(choose_images(None, 1, "verification")[0].read_bytes(), ImageLimits())
    batch = handler.preprocess([image])
    durations: list[float] = []
    while sum(durations) < TIMED_S or (len(durations) <= TIMED_RUNS and sum(durations) < SLOW_TIMED_S):
        started = time.perf_counter()
        handler.inference(batch)
        durations.append(time.perf_counter() - started)
    return {"ms": round(1000 * statistics.median(durations[1:] or durations), 1)}


if __name__ == "__main__":
    run(main)
