"""Apache TVM on CPUs. Artifact: `model.so`, the network compiled for one image, and `model.json` that tells of it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import tvm
from torch import Tensor
from tvm import relax

from vision_serving.backends.base import read_document
from vision_serving.config import BackendConfig
from vision_serving.errors import BackendError, first_line, foreign_code
from vision_serving.validation import StrictModel

REQUIREMENTS = "tvm"
DISTRIBUTIONS = ("apache-tvm",)


class CompiledBy(StrictModel):
    """The content of `model.json`. `target`: what TVM compiled for. `outputs`: their names, in order."""

    tvm: str
    target: str
    outputs: tuple[str, ...]


class TvmBackend:
    """Images run one after another: TVM's code for a batch of any size is several times slower than for one image."""

    device_types = ("cpu",)

    def __init__(self, run: Callable[[Any], Any], output_names: tuple[str, ...]) -> None:
        self._run = run
        self._output_names = output_names

    @classmethod
    def load(cls, artifact: Path, config: BackendConfig, device: torch.device) -> "TvmBackend":
        compiled_by = read_document(artifact.with_suffix(".json"), CompiledBy)
        # Read when TVM starts its threads, which is once in a process.
        os.environ["TVM_NUM_THREADS"] = str(config.threads)
        os.environ["TVM_BIND_THREADS"] = "1" if config.pin_threads else "0"
        what = f"TVM {tvm.__version__} cannot load {artifact.name}, which {compiled_by.tvm} compiled"
        with foreign_code(lambda error: BackendError(f"{what}: {first_line(error)[:300]}")):
            machine = relax.VirtualMachine(tvm.runtime.load_module(str(artifact)), tvm.cpu())
            run = machine["main"]
        return cls(run, compiled_by.outputs)

    def infer(self, pixels: Tensor) -> dict[str, Tensor]:
        images = [self._run(tvm.runtime.tensor(image.numpy())) for image in torch.split(pixels.contiguous(), 1)]
        return {
            name: torch.cat([torch.from_numpy(outputs[index].numpy()) for outputs in images])
            for index, name in enumerate(self._output_names)
        }
