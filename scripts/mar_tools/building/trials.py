"""One candidate, exported and verified in a process of its own: whatever happens there becomes a row."""

import shutil
import tempfile
from pathlib import Path

import orjson

from mar_tools.building.candidates import Candidate, Verdict
from mar_tools.child_processes import python_command, run_isolated
from mar_tools.exporting.export_folders import artifact_files, export_folder
from mar_tools.models.recipes import Recipe
from mar_tools.verification.gate import read_report
from vision_serving.config import DeviceType, Precision, read_handler_config
from vision_serving.validation import StrictModel

TRIAL = "trial.json"
RESULT = "result.json"
NOT_POSSIBLE = "not possible"  # begins the reason of a candidate whose process could say what was wrong
MB = 1e6


class Trial(StrictModel):
    """What the process is told. The recipe itself travels, not its file: it may be edited while a build runs.

    is_reference: the checkpoint is loaded from where the recipe says, else from the reference's export.
    """

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
    """What the process tells when it did not crash. `problem`: empty where there is a report to read."""

    problem: str
    is_missing_package: bool = False


def new_trial(recipe: Recipe, exports: Path, pair: tuple[str, Precision], device_type: DeviceType) -> Trial:
    backend, precision = pair
    return Trial(
        recipe=recipe,
        recipe_folder=recipe.folder.absolute(),
        exports=exports.absolute(),
        backend=backend,
        precision=precision,
        device_type=device_type,
    )


def run_trial(trial: Trial, timeout_s: float) -> Candidate:
    """Return the row of a candidate: verified, rejected or failed. The process's output is in `<export>.log`."""
    with tempfile.TemporaryDirectory(prefix="trial-") as exchange:
        (Path(exchange) / TRIAL).write_text(trial.model_dump_json(by_alias=True), encoding="utf-8")
        command = python_command("mar_tools.building.trial_process", exchange)
        try:
            finished = run_isolated(command, timeout_s, log_of(trial.folder))
        finally:
            remove_unfinished(trial.folder)
        result = TrialResult(problem=finished.problem) if finished.problem else _read_result(Path(exchange) / RESULT)
    seconds = round(finished.seconds, 1)
    if result.problem:
        verdict: Verdict = "not tried" if result.is_missing_package else "failed"
        return Candidate(trial.backend, trial.precision, trial.device_type, verdict, result.problem, seconds)
    return read_row(trial, seconds)


def log_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.log")


def remove_unfinished(folder: Path) -> None:
    """Remove what a process that was killed in the middle of an export leaves beside its folder."""
    for unfinished in folder.parent.glob(f".{folder.name}-*"):
        shutil.rmtree(unfinished, ignore_errors=True)


def read_row(trial: Trial, build_s: float) -> Candidate:
    """Return what the export folder says."""
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


def _read_result(path: Path) -> TrialResult:
    return TrialResult.model_validate(orjson.loads(path.read_bytes()))
