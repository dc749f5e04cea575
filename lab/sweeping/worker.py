"""One model on some backends and precisions, each one's outcome written as soon as it is there.

python -m lab.sweeping.worker job.json
"""

import gc
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import orjson

from lab.sweeping.coverage import Outcome, write_whole
from lab.sweeping.zoo import ZooModel
from mar_tools.exporting.export import export_model
from mar_tools.exporting.export_folders import REFERENCE, export_folder, load_reference
from mar_tools.images import choose_images
from mar_tools.models.checkpoints import Checkpoint, load_checkpoint
from mar_tools.verification.gate import verify_export
from mar_tools.verification.observations import load_handler
from vision_serving.config import ImageLimits, Precision
from vision_serving.errors import VisionServingError
from vision_serving.handler import VisionHandler
from vision_serving.pictures.decoding import decode_image
from vision_serving.pictures.resizing import ImageBatch
from vision_serving.validation import StrictModel, parse_config

TIMED_S = 0.3  # for one batch size; up to ten times that for three runs
TIMED_RUNS = 3
SLOW_TIMED_S = 3.0
BATCH = 4
BATCHED_UP_TO_MS = 1000.0  # an image; beyond that a batch would take too long to be timed
REASON_CHARS = 240


class Job(StrictModel):
    """exports: where the model's reference is, or comes into being. outcomes: for `<backend>-<precision>.json`."""

    model: ZooModel
    steps: tuple[tuple[str, Precision], ...]
    exports: Path
    outcomes: Path


def main() -> None:
    job = parse_config(Job, orjson.loads(Path(sys.argv[1]).read_bytes()), sys.argv[1])
    try:
        checkpoint = prepare_checkpoint(job)
    except Exception as error:  # nothing of this model can be had
        for step in job.steps:
            write_outcome(job, step, describe_error(error))
        return
    for step in job.steps:
        write_outcome(job, step, attempt(job, checkpoint, *step))


def prepare_checkpoint(job: Job) -> Checkpoint:
    """Prepare it as the reference has it, or make it.

    Then eager fp32, which becomes the reference, is the first in line.
    """
    recipe = job.model.recipe()
    reference = job.exports / recipe.name / REFERENCE
    return load_reference(reference) if reference.is_dir() else load_checkpoint(recipe)


def attempt(job: Job, checkpoint: Checkpoint, backend: str, precision: Precision) -> Outcome:
    """Export, verify and time; nothing but the reference stays on disk, as large models would fill it."""
    recipe = job.model.recipe()
    folder = export_folder(job.exports, recipe, backend, precision)
    try:
        export_model(recipe, checkpoint, backend, precision, job.exports)
        outcome = describe_report(verify_export(folder))
        return outcome.model_copy(update=measure_ms(folder)) if outcome.status == "verified" else outcome
    except Exception as error:  # whatever an exporter or a runtime raises belongs into the table
        return describe_error(error)
    finally:
        gc.collect()  # exported programs and graphs are cycles of large tensors
        if folder.name != REFERENCE:
            shutil.rmtree(folder, ignore_errors=True)


def describe_report(report: dict[str, Any]) -> Outcome:
    """Describe the report of a verification."""
    measured, quantization = report["measured"], report["quantization"]
    float_layers = quantization.get("float_layers")
    return Outcome(
        status="verified" if report["passed"] else "rejected",
        reason="; ".join(report["failures"]) or None,
        snr_db=round(measured["snr_db"], 1),
        matched_boxes=measured.get("matched_boxes"),
        scheme=quantization.get("scheme"),
        float_layers=None if float_layers is None else len(float_layers),
    )


def describe_error(error: BaseException) -> Outcome:
    """Describe an error: ours say why; one with a cause was not foreseen. Others are named, with their first cause."""
    if isinstance(error, VisionServingError):
        status = "failed" if error.__cause__ else "not supported"
        return Outcome(status=status, reason=shorten(str(error)))
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    names = dict.fromkeys(type(found).__name__ for found in (error, cause))
    said = next((line for line in str(cause).splitlines() if line.strip()), "without a message")
    return Outcome(status="failed", reason=shorten(f"{', '.join(names)}: {said}"))


def shorten(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= REASON_CHARS else words[: REASON_CHARS - 1] + "…"


def measure_ms(folder: Path) -> dict[str, float | None]:
    """Return medians over some runs of the backend, on one image and on four, from pixels to outputs."""
    handler = load_handler(folder)
    image = decode_image(choose_images(None, 1, "verification")[0].read_bytes(), ImageLimits())
    ms = median_ms(handler, handler.preprocess([image]))
    if ms > BATCHED_UP_TO_MS:
        return {"ms": round(ms, 1), "ms_of_4": None}
    return {"ms": round(ms, 1), "ms_of_4": round(median_ms(handler, handler.preprocess([image] * BATCH)) / BATCH, 1)}


def median_ms(handler: VisionHandler, batch: ImageBatch) -> float:
    """Return the median of the runs after the first, where there is time for more than one."""
    durations: list[float] = []
    while sum(durations) < TIMED_S or (len(durations) <= TIMED_RUNS and sum(durations) < SLOW_TIMED_S):
        started = time.perf_counter()
        handler.inference(batch)
        durations.append(time.perf_counter() - started)
    return 1000 * statistics.median(durations[1:] or durations)


def write_outcome(job: Job, step: tuple[str, Precision], outcome: Outcome) -> None:
    write_whole(job.outcomes / f"{'-'.join(step)}.json", outcome.model_dump_json())


if __name__ == "__main__":
    main()
