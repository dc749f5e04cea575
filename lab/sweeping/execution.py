"""The plan, model by model: a reference each, then every backend against it; a row is kept as soon as it is there."""

import shutil
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Protocol

import orjson

from lab.sweeping.coverage import Row, Run, lock_folder, read_coverage, write_coverage
from lab.sweeping.plan import Task
from lab.sweeping.processes import Limits, Step, run_steps
from lab.sweeping.worker import Job
from lab.sweeping.zoo import ZooModel
from mar_tools.child_processes import python_command
from mar_tools.exporting.export_folders import REFERENCE
from mar_tools.machine import cpu_name, package_versions
from vision_serving.config import Precision
from vision_serving.cores import usable_cores

PACKAGES = ("torch", "torchvision", "timm", "openvino", "nncf", "onnx", "onnxscript", "onnxruntime", "torchao", "numpy")

Pair = tuple[str, Precision]
REFERENCE_PAIR: Pair = ("eager", "fp32")


class Listener(Protocol):
    """Hears of every row when it begins, the reference's too, and when it is there."""

    def begins(self, model: str, backend: str, precision: str) -> None: ...
    def ends(self, row: Row) -> None: ...


def describe_run(timed: bool) -> Run:
    today, versions = date.today().isoformat(), package_versions(PACKAGES)
    return Run(id=0, date=today, cpu=cpu_name(), cores=usable_cores(), timed=timed, versions=versions)


def sweep(plan: Sequence[Sequence[Task]], output: Path, run: Run, limits: Limits, listener: Listener) -> None:
    """Add a row for each step of the plan to `output`, as soon as it is there."""
    for tasks in plan:
        with (
            tempfile.TemporaryDirectory(prefix="sweep-") as scratch,
            closing(sweep_model(tasks, Path(scratch), limits, listener)) as rows,
        ):
            for row in rows:
                record_row(row, output, run)
                listener.ends(row)


def record_row(row: Row, output: Path, run: Run) -> None:
    with lock_folder(output.parent):
        write_coverage(read_coverage(output).with_row(row, run), output)


def sweep_model(tasks: Sequence[Task], scratch: Path, limits: Limits, listener: Listener) -> Generator[Row, None, None]:
    """Yield the reference, eager fp32, then everything else against it. tasks: those of one model."""
    model = tasks[0].model
    wanted = [(task.backend, precision) for task in tasks for precision in task.precisions]
    for pairs in ([REFERENCE_PAIR], [pair for pair in wanted if pair != REFERENCE_PAIR]):
        for step in run_pairs(model, pairs, scratch, limits, listener):
            pair = next(pair for pair in pairs if step_name(*pair) == step.name)
            if step.stopped:
                remove_unfinished(scratch / model.name)
            if pair == REFERENCE_PAIR and step.outcome.status not in ("verified", "rejected"):
                yield from _without_reference(model, wanted, step)
                return
            if pair in wanted:
                yield _new_row(model, *pair, step)


def remove_unfinished(exports: Path) -> None:
    """Remove what a process that was stopped leaves there; large models would fill the disk."""
    for folder in exports.glob("*/"):
        if folder.name != REFERENCE:
            shutil.rmtree(folder, ignore_errors=True)


def _without_reference(model: ZooModel, pairs: Sequence[Pair], step: Step) -> Iterator[Row]:
    reason = f"no eager fp32 reference: {step.outcome.reason}"
    failed = Step(step.name, step.outcome.model_copy(update={"reason": reason}), step.seconds, step.peak_gib)
    for pair in pairs:
        yield _new_row(model, *pair, failed)


def _new_row(model: ZooModel, backend: str, precision: Precision, step: Step) -> Row:
    return Row(
        **step.outcome.model_dump(),
        group=model.group,
        model=model.name,
        backend=backend,
        precision=precision,
        seconds=round(step.seconds, 1),
        peak_gib=round(step.peak_gib, 2),
        run=0,
    )


def run_pairs(
    model: ZooModel, pairs: Sequence[Pair], scratch: Path, limits: Limits, listener: Listener
) -> Iterator[Step]:
    """Run in one process as long as none of them brings it down: imports and the model's construction take seconds."""
    by_name = {step_name(*pair): pair for pair in pairs}
    outcomes = Path(tempfile.mkdtemp(prefix="outcomes-", dir=scratch))

    def command(left: Sequence[str]) -> list[str]:
        steps = tuple(by_name[name] for name in left)
        job = Job(model=model, steps=steps, exports=scratch, outcomes=outcomes)
        (outcomes / "job").write_bytes(orjson.dumps(job.model_dump(mode="json")))
        return python_command("lab.sweeping.worker", outcomes / "job")

    return run_steps(command, list(by_name), outcomes, limits, lambda name: listener.begins(model.name, *by_name[name]))


def step_name(backend: str, precision: Precision) -> str:
    return f"{backend}-{precision}"
