"""One candidate, exported and verified in a process of its own: whatever happens there becomes a row."""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mar_tools.building.candidates import Candidate, CandidateVerdict
from mar_tools.child_processes import Finished, python_command, run_isolated
from mar_tools.exporting.export_folders import artifact_files, export_folder
from mar_tools.exporting.exporters import BackendAndPrecision
from mar_tools.models.recipes import Recipe
from mar_tools.verification.gate import read_report
from vision_serving.config import DeviceType, Precision, read_handler_config
from vision_serving.validation import StrictModel

TRIAL = "trial.json"
RESULT = "result.json"
PROCESS = "mar_tools.building.trial_process"
NOT_POSSIBLE = "not possible"  # begins the reason of a candidate whose process could say what was wrong
MB = 1e6

Problem = Literal["missing package", "refused", "unforeseen"]


class CandidateTrial(StrictModel):
    """What the process is told; the recipe's file may change meanwhile. is_reference: made from the recipe's source."""

    recipe: Recipe
    recipe_folder: Path
    exports: Path
    backend: str
    precision: Precision
    device_type: DeviceType
    is_reference: bool = False

    @property
    def folder(self) -> Path:
        return export_folder(self.exports, self.recipe, self.backend, self.precision, self.device_type)


class TrialResult(StrictModel):
    """What the process tells when it did not crash. problem: None where there is a report to read.

    refused: an exporter or backend said why it cannot. unforeseen: a library raised something.
    figures: what a process that measures more has measured.
    """

    problem: Problem | None = None
    reason: str = ""
    figures: Mapping[str, float | None] = {}


@dataclass(frozen=True)
class TrialRun:
    """How the process ended, and what it told; None where it did not come to that."""

    finished: Finished
    result: TrialResult | None


def new_trial(recipe: Recipe, exports: Path, pair: BackendAndPrecision, device_type: DeviceType) -> CandidateTrial:
    backend, precision = pair
    return CandidateTrial(
        recipe=recipe,
        recipe_folder=recipe.folder.absolute(),
        exports=exports.absolute(),
        backend=backend,
        precision=precision,
        device_type=device_type,
    )


def run_trial(trial: CandidateTrial, timeout_s: float) -> Candidate:
    """Return the row of a candidate: verified, rejected or failed. The process's output is in `<export>.log`."""
    run = run_process(trial, timeout_s)
    seconds = round(run.finished.seconds, 1)
    if run.result is not None and run.result.problem is None:
        return read_row(trial, seconds)
    verdict: CandidateVerdict = "failed"
    if run.result is None:
        reason = run.finished.problem
    elif run.result.problem == "missing package":
        verdict, reason = "not tried", run.result.reason
    else:
        reason = f"{NOT_POSSIBLE}: {run.result.reason}"
    return Candidate(trial.backend, trial.precision, trial.device_type, verdict, reason, seconds)


def run_process(
    trial: CandidateTrial, timeout_s: float, memory_gib: float | None = None, module: str = PROCESS
) -> TrialRun:
    """Export and verify in a process of its own. module: what runs there, see `trial_process.answer_trial`."""
    with tempfile.TemporaryDirectory(prefix="trial-") as exchange:
        (Path(exchange) / TRIAL).write_text(trial.model_dump_json(by_alias=True), encoding="utf-8")
        try:
            finished = run_isolated(python_command(module, exchange), timeout_s, log_of(trial.folder), memory_gib)
        finally:
            for unfinished in trial.folder.parent.glob(f".{trial.folder.name}-*"):  # of a process that was killed
                shutil.rmtree(unfinished, ignore_errors=True)
        result = Path(exchange) / RESULT
        if finished.succeeded and result.is_file():
            return TrialRun(finished, TrialResult.model_validate_json(result.read_bytes()))
    return TrialRun(replace(finished, problem=finished.problem or "failed: ended without a result"), None)


def log_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.log")


def read_row(trial: CandidateTrial, build_s: float) -> Candidate:
    """Read the row of a candidate from its export folder."""
    report = read_report(trial.folder)
    config = read_handler_config(trial.folder / "model-config.yaml")
    size = sum(file.stat().st_size for file in artifact_files(trial.folder, config.artifact))
    return Candidate(
        backend=trial.backend,
        precision=trial.precision,
        device=trial.device_type,
        verdict="verified" if report["passed"] else "rejected",
        reason="; ".join(report["failures"]),
        build_s=build_s,
        size_mb=round(size / MB, 3),
        measured=report["measured"],
        accuracy=report["accuracy"] and report["accuracy"]["candidate"],
        quantization=report["quantization"],
    )
