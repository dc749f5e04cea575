"""`torch.export`, TVM's Relax, and LLVM: a shared library with the weights in it, for one image.

TVM finds fast loops by trying thousands of them, for hours a model. Here each loop nest gets one fixed schedule: what
is next to each other in memory in one vector, a few rows of the result in registers, the rest over the threads.
"""

from pathlib import Path
from typing import Any

import orjson
import torch
import tvm
from tvm.ir import IRModule
from tvm.relax import transform
from tvm.relax.frontend.torch import from_exported_program
from tvm.s_tir import Schedule, dlight
from tvm.support.cc import get_cc
from tvm.target import Target

from mar_tools.exporting.exporters.base import Exported, ExportJob, Precisions
from vision_serving.backends.tvm import CompiledBy
from vision_serving.cores import cpu_features
from vision_serving.errors import BackendError

PRECISIONS: Precisions = {"cpu": {"fp32": 150}}
ARTIFACT = "model.so"
LANES = 16  # numbers in a vector, at most
ROWS = 8  # vectors of one result that stay in registers
SPATIAL, REDUCTION = 0, 2  # kinds of TVM's loops

# What the library may use -> what LLVM calls a CPU that has it; the first that is there.
LEVELS = {"avx512": "x86-64-v4", "avx2": "x86-64-v3"}


def export(job: ExportJob, folder: Path) -> Exported:
    if not job.has_fixed_size:
        raise BackendError(
            "tvm compiles for images of one size: set `preprocessing.resize` to mode exact or letterbox, or use "
            "another backend"
        )
    if get_cc() is None:
        raise BackendError("tvm needs a C++ compiler to link the compiled network: install g++")
    features = tuple(feature for feature in LEVELS if feature in cpu_features())
    target = Target(cpu_target(features))
    try:
        compiled = compile_graph(job, target)
        compiled.export_library(str(folder / ARTIFACT))
    except Exception as error:  # all sorts: each means that this graph is not for TVM
        lines = [line for line in str(error).strip().splitlines() if line.strip()]
        raise BackendError(f"tvm cannot compile this model: {(lines or [type(error).__name__])[-1][:300]}") from error
    told = CompiledBy(tvm=tvm.__version__, target=str(target), outputs=tuple(job.output_names))
    (folder / ARTIFACT).with_suffix(".json").write_bytes(orjson.dumps(told.model_dump(mode="json")))
    return Exported(ARTIFACT, cpu_features=features)


def cpu_target(features: tuple[str, ...]) -> dict[str, Any]:
    """Return LLVM for CPUs that have these features, whoever made them, so that the library runs wherever they are."""
    level = {"mcpu": LEVELS[features[0]]} if features else {}
    return {"kind": "llvm", "fast-math-contract": True, **level}


def compile_graph(job: ExportJob, target: Target) -> Any:
    with torch.no_grad():
        program = torch.export.export(job.float_graph(), (job.pixels[:1],))
    module = from_exported_program(program)
    with target:
        return tvm.compile(scheduled(module), target=target)


def scheduled(module: IRModule) -> IRModule:
    """Apply TVM's default passes up to loops, and the schedule of each."""
    passes = [
        transform.DecomposeOpsForInference(),
        transform.CanonicalizeBindings(),
        transform.FoldConstant(),
        transform.LegalizeOps(),
        transform.AnnotateTIROpPattern(),
        transform.FoldConstant(),
        transform.FuseOps(),
        transform.FuseTIR(),
        dlight.ApplyDefaultSchedule(LoopRule()),
    ]
    return tvm.transform.Sequential(passes)(module)


class LoopRule(dlight.ScheduleRule):  # type: ignore[misc]
    """One schedule for every loop nest. Where it does not fit, TVM's plain loops stay."""

    def apply(self, func: Any, target: Target, tunable: bool) -> Schedule | None:
        schedule = Schedule(func)
        blocks = dlight.normalize_prim_func(schedule)
        if blocks is None:
            return None
        for block in dlight.try_inline(schedule, blocks):
            _schedule_block(schedule, block.block_rv)
        return schedule


def _schedule_block(schedule: Schedule, block: Any) -> None:
    loops = schedule.get_loops(block)
    kinds = [int(variable.iter_type) for variable in schedule.get(block).iter_vars]
    if len(kinds) != len(loops) or not set(kinds) <= {SPATIAL, REDUCTION} or SPATIAL not in kinds:
        return
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == SPATIAL]
    reduced = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == REDUCTION]
    if reduced:
        _schedule_sum(schedule, block, spatial, reduced)
    else:
        _schedule_map(schedule, spatial)


def _schedule_map(schedule: Schedule, spatial: list[Any]) -> None:
    lanes = _divisor(_extent(schedule, spatial[-1]), LANES)
    if lanes > 1:
        _, vector = schedule.split(spatial[-1], [None, lanes])
        schedule.vectorize(vector)
    if len(spatial) > 1:
        schedule.parallel(schedule.fuse(*spatial[:-1]))


def _schedule_sum(schedule: Schedule, block: Any, spatial: list[Any], reduced: list[Any]) -> None:
    """Sum ROWS vectors of the result in registers, then write them."""
    outer = spatial[:-1]
    columns, vector = schedule.split(spatial[-1], [None, _divisor(_extent(schedule, spatial[-1]), LANES)])
    rows = []
    wide = [index for index, loop in enumerate(outer) if _extent(schedule, loop) >= 4]
    if wide:
        extent = _extent(schedule, outer[wide[0]])
        outer[wide[0]], inner = schedule.split(outer[wide[0]], [None, _divisor(extent, ROWS)])
        rows.append(inner)
    schedule.reorder(*outer, columns, *reduced, *rows, vector)
    if outer:
        schedule.parallel(schedule.fuse(*outer))
    written = schedule.cache_write(block, 0, "local")
    schedule.reverse_compute_at(written, columns)
    schedule.vectorize(vector)
    for loop in rows:
        schedule.unroll(loop)
    schedule.vectorize(schedule.get_loops(written)[-1])
    cleared = schedule.decompose_reduction(block, reduced[0])
    schedule.vectorize(schedule.get_loops(cleared)[-1])


def _extent(schedule: Schedule, loop: Any) -> int:
    return int(schedule.get(loop).extent)


def _divisor(extent: int, most: int) -> int:
    return next(number for number in range(min(most, extent), 0, -1) if extent % number == 0)
