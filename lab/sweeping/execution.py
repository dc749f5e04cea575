"""The plan, model by model: a reference each, then every backend against it; a row is kept as soon as it is there."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from filelock import FileLock

from lab.sweeping.coverage import CoverageRow, RowOutcome, SweepRun, read_coverage, write_coverage
from lab.sweeping.plan import SweepTask
from lab.sweeping.zoo import ZooModel
from mar_tools.building.trials import CandidateTrial, TrialRun, new_trial, run_process
from mar_tools.exporting.export_folders import REFERENCE
from mar_tools.exporting.exporters import EAGER_FP32, BackendAndPrecision
from mar_tools.machine import cpu_name, package_versions
from mar_tools.verification.gate import read_report
from vision_serving.cores import usable_cores

PACKAGES = ("torch", "torchvision", "timm", "openvino", "nncf", "onnx", "onnxscript", "onnxruntime", "torchao", "numpy")
PROCESS = "lab.sweeping.trial_process"
REASON_CHARS = 240


@dataclass(frozen=True)
class Limits:
    """Of one row: one model on one backend in one precision, the start of its process included."""

    timeout_s: float = 300.0
    memory_gib: float = 16.0


def describe_sweep(timed: bool) -> SweepRun:
    today, versions = date.today().isoformat(), package_versions(PACKAGES)
    return SweepRun(id=0, date=today, cpu=cpu_name(), cores=usable_cores(), timed=timed, versions=versions)


def sweep(plan: Sequence[Sequence[SweepTask]], output: Path, run: SweepRun, limits: Limits) -> Iterator[CoverageRow]:
    """Yield a row for each step of the plan, as soon as it is in `output`."""
    for tasks in plan:
        with tempfile.TemporaryDirectory(prefix="sweep-") as scratch:
            for row in sweep_model(tasks, Path(scratch), limits):
                record_row(row, output, run)
                yield row


def record_row(row: CoverageRow, output: Path, run: SweepRun) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{output}.lock"):  # several sweeps of other models may share the file
        write_coverage(read_coverage(output).with_row(row, run), output)


def sweep_model(tasks: Sequence[SweepTask], scratch: Path, limits: Limits) -> Iterator[CoverageRow]:
    """Yield the reference, eager fp32, then everything else against it. tasks: those of one model."""
    model = tasks[0].model
    wanted = [(task.backend, precision) for task in tasks for precision in task.precisions]
    for pair in dict.fromkeys([EAGER_FP32, *wanted]):
        row = try_pair(model, pair, scratch, limits)
        if pair == EAGER_FP32 and row.status not in ("verified", "rejected"):
            reason = f"no eager fp32 reference: {row.reason}"
            for backend, precision in wanted:
                yield row.model_copy(update={"backend": backend, "precision": precision, "reason": reason})
            return
        if pair in wanted:
            yield row


def try_pair(model: ZooModel, pair: BackendAndPrecision, exports: Path, limits: Limits) -> CoverageRow:
    """Return the row of a pair; nothing but the reference stays on disk, as large models would fill it."""
    trial = new_trial(model.recipe(), exports, pair, "cpu")
    trial.folder.parent.mkdir(parents=True, exist_ok=True)
    trial = trial.model_copy(update={"is_reference": pair == EAGER_FP32})
    run = run_process(trial, limits.timeout_s, limits.memory_gib, PROCESS)
    outcome = describe_trial(trial, run)
    if trial.folder.name != REFERENCE:
        shutil.rmtree(trial.folder, ignore_errors=True)
    return CoverageRow(
        **outcome.model_dump(),
        group=model.group,
        model=model.name,
        backend=trial.backend,
        precision=trial.precision,
        seconds=round(run.finished.seconds, 1),
        peak_gib=round(run.finished.peak_gib, 2),
        run=0,
    )


def describe_trial(trial: CandidateTrial, run: TrialRun) -> RowOutcome:
    if run.result is None:
        status = "timed out" if run.finished.timed_out else "crashed"
        return RowOutcome(status=status, reason=run.finished.problem.removeprefix("crashed: "))
    if run.result.problem is not None:
        status = "not supported" if run.result.problem == "refused" else "failed"
        return RowOutcome(status=status, reason=clip_reason(run.result.reason))
    report = read_report(trial.folder)
    measured = report["measured"]
    return RowOutcome(
        status="verified" if report["passed"] else "rejected",
        reason="; ".join(report["failures"]) or None,
        snr_db=round(measured["snr_db"], 1),
        matched_boxes=measured.get("matched_boxes"),
        ms=run.result.figures.get("ms"),
    )


def clip_reason(text: str) -> str:
    return text if len(text) <= REASON_CHARS else text[: REASON_CHARS - 1] + "…"
