"""The eager artifact, and the cache of kernels that Inductor fills when it compiles the graph of that artifact."""

import sys
import tempfile
from pathlib import Path

import orjson
import torch

from mar_tools.child_processes import python_command, run_isolated
from mar_tools.command_line import run
from mar_tools.exporting.exporters import eager
from mar_tools.exporting.exporters.aotinductor import compiled_cpu_features
from mar_tools.exporting.exporters.base import Exported, ExportJob, Precisions, require_python_network
from vision_serving.backends.eager import EagerBackend
from vision_serving.backends.torch_compile import (
    CACHE,
    CompiledFor,
    compile_with_inductor,
    read_size,
    require_compiler_at_load,
)
from vision_serving.config import BackendConfig, DeviceType, Precision
from vision_serving.errors import BackendError

PRECISIONS: Precisions = {"cpu": {"bf16": 130, "fp32": 140}, "cuda": {"fp16": 70, "bf16": 80, "fp32": 160}}
TIMEOUT_S = 3600  # a build gives up on a candidate much earlier


def export(job: ExportJob, folder: Path) -> Exported:
    require_python_network(job)
    if not job.has_fixed_size:
        raise BackendError(
            "torch_compile needs images of one size, since a new one could compile within a request: set "
            "`preprocessing.resize` to mode exact or letterbox, or use another backend"
        )
    require_compiler_at_load()
    artifact = folder / eager.export(job, folder).artifact
    height, width = job.pixels.shape[1:3]
    compiled_for = CompiledFor(size_hw=(height, width))
    (artifact / "compiled.json").write_bytes(orjson.dumps(compiled_for.model_dump(mode="json")))
    _fill_cache_apart(artifact, job)
    return Exported(artifact.name, cpu_features=compiled_cpu_features(job))


def _fill_cache_apart(artifact: Path, job: ExportJob) -> None:
    """Fill it in a process of its own: what this one has compiled before would not be written again."""
    command = python_command(__name__, artifact.absolute(), job.precision, job.device_type)
    with tempfile.TemporaryDirectory() as temporary:
        finished = run_isolated(command, TIMEOUT_S, Path(temporary) / "log")
    if not finished.succeeded:
        raise BackendError(finished.problem.removeprefix("failed: "))


def fill_cache(artifact: Path, precision: Precision, device_type: DeviceType) -> None:
    """Compile the graph of an artifact into its cache. Raises BackendError for one that cannot be compiled."""
    cache = artifact / CACHE
    device = torch.device(device_type)
    graph = EagerBackend.load_graph(artifact, BackendConfig(precision=precision), device)
    compile_with_inductor(graph, read_size(artifact), device, cache)
    for lock in cache.rglob("*.lock"):
        lock.unlink()


def main() -> None:
    artifact, precision, device_type = sys.argv[1:]
    fill_cache(Path(artifact), precision, device_type)  # type: ignore[arg-type]


if __name__ == "__main__":
    run(main)
