"""PyTorch with kernels that Inductor compiled. Artifact: eager's folder, with two things more.

compiled.json    the size of the images that it was compiled for
inductor/        Inductor's cache as the export filled it: kernels, and the graphs that call them
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler

from vision_serving.backends.base import read_document
from vision_serving.backends.eager import EagerBackend
from vision_serving.config import BackendConfig, PositiveHW
from vision_serving.errors import BackendError, first_line, foreign_code
from vision_serving.validation import StrictModel

logger = logging.getLogger(__name__)

CACHE = "inductor"
INDUCTOR: dict[str, str | int | bool | Callable[..., Any]] = {
    "cpp.dynamic_threads": True,  # else the kernels run with as many threads as the process that exported them
    "cpp.vec_isa_ok": True,  # vector instructions that the CPU names are not tried out by compiling a program for each
    "cpp_cache_precompile_headers": False,  # one more thing that a worker would have to compile
}
WARM_BATCHES = (2, 1)  # PyTorch compiles a batch of one apart from all others
ENTRIES = 64  # graphs that one process may hold compiled, when it loads several models to compare them

Compiled = Callable[[Tensor], dict[str, Tensor]]


class CompiledFor(StrictModel):
    """The content of `compiled.json`."""

    size_hw: PositiveHW


class TorchCompileBackend:
    """Compiled while it is loaded, from the kernels in the artifact; a request never compiles."""

    device_types = ("cpu", "cuda")

    def __init__(self, model: Compiled, device: torch.device) -> None:
        self._model = model
        self._device = device

    @classmethod
    def load(cls, artifact: Path, config: BackendConfig, device: torch.device) -> "TorchCompileBackend":
        require_compiler_at_load()
        size_hw = read_size(artifact)
        graph = EagerBackend.load_graph(artifact, config, device)
        misses = counters["inductor"]["fxgraph_cache_miss"]
        with tempfile.TemporaryDirectory(prefix="inductor-") as cache:
            # Copied, since Inductor writes into its cache, and an artifact's bytes are the ones that were verified.
            shutil.copytree(artifact / CACHE, cache, dirs_exist_ok=True)
            model = compile_with_inductor(graph, size_hw, device, Path(cache))
        if counters["inductor"]["fxgraph_cache_miss"] > misses:
            logger.warning("kernels were compiled anew: the archive's are of another PyTorch, CPU or GPU; rebuild it")
        return cls(model, device)

    def infer(self, pixels: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode(), torch.compiler.set_stance("fail_on_recompile"):
            outputs = self._model(_fresh(pixels, self._device))
        return {name: values.cpu() for name, values in outputs.items()}


def require_compiler_at_load() -> None:
    """Refuse a missing C++ compiler, which Inductor asks for before it looks into its cache. Raises BackendError."""
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise BackendError(
            "torch_compile needs a C++ compiler, also where it only loads compiled kernels: install g++, or build the "
            "model with --backend aotinductor, whose archives need none"
        ) from error


def compile_with_inductor(graph: nn.Module, size_hw: PositiveHW, device: torch.device, cache: Path) -> Compiled:
    """Compile for any batch size, reading and filling the cache of kernels. Raises BackendError."""
    model: Compiled = torch.compile(graph, fullgraph=True, dynamic=True, options={**INDUCTOR})
    with (
        foreign_code(lambda error: BackendError(f"torch_compile cannot compile this model: {first_line(error)[:300]}")),
        _inductor_cache(cache),
        torch._dynamo.config.patch(recompile_limit=ENTRIES),
        torch.inference_mode(),
    ):
        for count in WARM_BATCHES:
            model(_fresh(torch.zeros((count, *size_hw, 3), dtype=torch.uint8), device))
    return model


def read_size(artifact: Path) -> PositiveHW:
    """Return the size of images that an artifact was compiled for. Raises BackendError or ConfigError."""
    return read_document(artifact / "compiled.json", CompiledFor).size_hw


def _fresh(pixels: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of its own, contiguous, on the device: PyTorch would compile anew for a view or other strides."""
    return torch.empty(pixels.shape, dtype=pixels.dtype, device=device).copy_(pixels)


@contextmanager
def _inductor_cache(folder: Path) -> Iterator[None]:
    """Point Inductor to its cache, whose place it reads from the environment each time."""
    places = {"TORCHINDUCTOR_CACHE_DIR": str(folder), "TRITON_CACHE_DIR": str(folder / "triton")}
    before = {name: os.environ.get(name) for name in places}
    os.environ.update(places)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
