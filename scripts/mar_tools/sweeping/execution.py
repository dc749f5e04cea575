"""The plan, model by model: a reference each, then every backend against it; a row is kept as soon as it is there."""

import shutil
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

import orjson

from mar_tools.exports import REFERENCE
from mar_tools.isolation import python_command
from mar_tools.machine import cpu_name
from mar_tools.sweeping.coverage import Coverage, Row, Run, locked, read_coverage, write_coverage, write_whole
from mar_tools.sweeping.plan import Task
from mar_tools.sweeping.processes import Limits, Step, run_steps
from mar_tools.sweeping.rendering import render_markdown
from mar_tools.sweeping.worker import Job
from vision_serving.config import Precision
from vision_serving.resources import usable_cores

PACKAGES = ("torch", "torchvision", "timm", "openvino", "nncf", "onnx", "onnxscript", "onnxruntime", "torchao", "numpy")


class Listener(Protocol):
    """Hears of every row when it begins, the reference's too, and when it is there."""

    def begins(self, model: str, backend: str, precision: str) -> None: ...
    def ends(self, row: Row) -> None: ...


def describe_run(timed: bool) -> Run:
    versions = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    today = date.today().isoformat()
    return Run(id=0, date=today, cpu=cpu_name(), cores=usable_cores(), timed=timed, versions=versions)


def sweep(plan: Sequence[Sequence[Task]], output: Path, run: Run, limits: Limits, listener: Listener) -> None:
    """Add a row for each step of the plan to `output` and to the Markdown beside it, as soon as it is there."""
    for tasks in plan:
        with (
            tempfile.TemporaryDirectory(prefix="sweep-") as scratch,
            closing(sweep_model(tasks, Path(scratch), limits, listener)) as rows,
        ):
            for row in rows:
                record_row(row, output, run)
                listener.ends(row)


def record_row(row: Row, output: Path, run: Run) -> None:
    with locked(output.parent):
        coverage = read_coverage(output).with_row(row, run)
        write_coverage(coverage, output)
        write_page(coverage, output)


def write_page(coverage: Coverage, output: Path) -> None:
    write_whole(output.with_suffix(".md"), render_markdown(coverage))


def sweep_model(tasks: Sequence[Task], scratch: Path, limits: Limits, listener: Listener) -> Generator[Row, None, None]:
    """The reference, eager fp32, then everything else against it. tasks: those of one model."""
    wanted = {(task.backend, precision) for task in tasks for precision in task.precisions}
    for task in with_reference(tasks):
        for step in run_task(task, scratch, limits, listener):
            if step.stopped:
                remove_unfinished(scratch / task.model.name)
            is_reference = f"{task.backend}-{step.precision}" == REFERENCE
            if is_reference and step.outcome.status not in ("verified", "rejected"):
                yield from _without_reference(tasks, step)
                return
            if (task.backend, step.precision) in wanted:
                yield _new_row(task, step.precision, step)


def remove_unfinished(exports: Path) -> None:
    """What a process that was stopped leaves there; large models would fill the disk."""
    for folder in exports.glob("*/"):
        if folder.name != REFERENCE:
            shutil.rmtree(folder, ignore_errors=True)


def with_reference(tasks: Sequence[Task]) -> list[Task]:
    """Eager comes first, and begins with fp32."""
    reference_backend = REFERENCE.partition("-")[0]
    others = [task for task in tasks if task.backend != reference_backend]
    own = [p for task in tasks if task.backend == reference_backend for p in task.precisions if p != "fp32"]
    return [Task(tasks[0].model, reference_backend, ("fp32", *own)), *others]


def _without_reference(tasks: Sequence[Task], step: Step) -> Iterator[Row]:
    reason = f"no eager fp32 reference: {step.outcome.reason}"
    failed = Step(step.precision, step.outcome.model_copy(update={"reason": reason}), step.seconds, step.peak_gib)
    for task in tasks:
        for precision in task.precisions:
            yield _new_row(task, precision, failed)


def _new_row(task: Task, precision: Precision, step: Step) -> Row:
    return Row(
        **step.outcome.model_dump(),
        group=task.model.group,
        model=task.model.name,
        backend=task.backend,
        precision=precision,
        seconds=round(step.seconds, 1),
        peak_gib=round(step.peak_gib, 2),
        run=0,
    )


def run_task(task: Task, scratch: Path, limits: Limits, listener: Listener) -> Iterator[Step]:
    outcomes = scratch / task.backend
    outcomes.mkdir()

    def command(left: Sequence[Precision]) -> list[str]:
        job = Job(model=task.model, backend=task.backend, precisions=tuple(left), exports=scratch, outcomes=outcomes)
        (outcomes / "job").write_bytes(orjson.dumps(job.model_dump(mode="json")))
        return python_command("mar_tools.sweeping.worker", outcomes / "job")

    return run_steps(
        command,
        task.precisions,
        outcomes,
        limits,
        lambda precision: listener.begins(task.model.name, task.backend, precision),
    )
