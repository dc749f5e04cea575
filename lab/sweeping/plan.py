"""What a sweep does: models x backends x precisions, in passes, without what is known already."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from lab.sweeping.coverage import PRECISIONS, Coverage
from lab.sweeping.zoo import ZooModel
from mar_tools.exporting.exporters import list_candidates
from vision_serving.config import Precision
from vision_serving.errors import ConfigError

# The backends of the first passes, over all models: quick ones, then one that compiles C++ for minutes. All others
# that the table of candidates names make up the last pass.
FIRST_PASSES = (("openvino", "onnxruntime", "torchscript", "eager"), ("aotinductor",))

# Why a backend does not offer a precision at all, for any model.
NOT_OFFERED: dict[tuple[str, Precision], str] = {
    ("eager", "int8"): "PyTorch has no eager int8 kernels for most layers; openvino, onnxruntime and aotinductor do",
    ("torchscript", "int8"): "TorchScript's int8 kernels are deprecated; openvino, onnxruntime and aotinductor do int8",
    ("onnxruntime", "bf16"): "ONNX Runtime's CPU provider has no bf16 kernels for convolutions and matrix products",
    ("torch_compile", "int8"): "an int8 program of PyTorch's PT2E is compiled ahead of time instead: aotinductor",
    ("tvm", "bf16"): "TVM's schedules for CPUs are written here for fp32 alone",
    ("tvm", "int8"): "TVM's schedules for CPUs are written here for fp32 alone",
}

Again = Literal["nothing", "failed", "all"]


@dataclass(frozen=True)
class SweepTask:
    """One model on one backend, in these precisions, in this order."""

    model: ZooModel
    backend: str
    precisions: tuple[Precision, ...]


@dataclass(frozen=True)
class Selection:
    """What to sweep; None is everything. models: names or patterns such as `resnet*` and `detection/*`."""

    models: Sequence[str] | None = None
    backends: Sequence[str] | None = None
    precisions: Sequence[Precision] | None = None
    again: Again = "nothing"


def list_passes() -> list[tuple[str, ...]]:
    first = {backend for backends in FIRST_PASSES for backend in backends}
    others = dict.fromkeys(backend for backend, _ in list_candidates("cpu") if backend not in first)
    return [*FIRST_PASSES, *([tuple(others)] if others else [])]


def offered_precisions(backend: str) -> tuple[Precision, ...]:
    return tuple(precision for precision in PRECISIONS if (backend, precision) in list_candidates("cpu"))


def why_not_offered(backend: str, precision: Precision) -> str:
    return NOT_OFFERED.get((backend, precision), f"backend {backend} has no precision {precision} on a CPU")


def make_plan(zoo: Sequence[ZooModel], selection: Selection, coverage: Coverage) -> list[list[SweepTask]]:
    """Make lists of the tasks of one model in one pass: they share the model's reference. Raises ConfigError."""
    models = choose_models(zoo, selection.models)
    check_names("backend", selection.backends, [backend for backends in list_passes() for backend in backends])
    check_names("precision", selection.precisions, PRECISIONS)
    plan = []
    for backends in list_passes():
        for model in models:
            tasks = [_new_task(model, backend, selection, coverage) for backend in backends]
            plan.append([task for task in tasks if task.precisions])
    return [tasks for tasks in plan if tasks]


def choose_models(zoo: Sequence[ZooModel], patterns: Sequence[str] | None) -> list[ZooModel]:
    if patterns is None:
        return list(zoo)
    for pattern in patterns:
        if not any(_matches(model, pattern) for model in zoo):
            raise ConfigError(f"no model of the zoo is called {pattern!r}; --list names them")
    return [model for model in zoo if any(_matches(model, pattern) for pattern in patterns)]


def check_names(what: str, chosen: Sequence[object] | None, known: Sequence[object]) -> None:
    unknown = [name for name in chosen or () if name not in known]
    if unknown:
        raise ConfigError(f"unknown {what} {unknown[0]!r}; expected one of {list(known)}")


def _matches(model: ZooModel, pattern: str) -> bool:
    return fnmatchcase(model.name, pattern) or fnmatchcase(f"{model.group}/{model.name}", pattern)


def _new_task(model: ZooModel, backend: str, selection: Selection, coverage: Coverage) -> SweepTask:
    chosen = selection.backends is None or backend in selection.backends
    wanted = [p for p in offered_precisions(backend) if selection.precisions is None or p in selection.precisions]
    left = [precision for precision in wanted if chosen and _is_left(model, backend, precision, selection, coverage)]
    return SweepTask(model, backend, tuple(left))


def _is_left(model: ZooModel, backend: str, precision: Precision, selection: Selection, coverage: Coverage) -> bool:
    row = coverage.by_key.get((model.group, model.name, backend, precision))
    failed = row is not None and row.status != "verified"
    return row is None or selection.again == "all" or (selection.again == "failed" and failed)
