"""AOTInductor: a graph compiled ahead of time. Artifact: `model.pt2`, for one kind of device."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from vision_serving.config import BackendConfig
from vision_serving.errors import BackendError, last_line


class AotInductorBackend:
    """Compiled code that takes any batch size; nothing is compiled in a worker."""

    device_types = ("cpu", "cuda")

    def __init__(self, model: Callable[[Tensor], dict[str, Tensor]], device: torch.device) -> None:
        self._model = model
        self._device = device

    @classmethod
    def load(cls, artifact: Path, config: BackendConfig, device: torch.device) -> "AotInductorBackend":
        index = -1 if device.index is None else device.index
        try:
            model = torch._inductor.aoti_load_package(str(artifact), device_index=index)
        except (RuntimeError, OSError, zipfile.BadZipFile) as error:
            raise BackendError(f"AOTInductor cannot load {artifact.name}: {last_line(error)}") from error
        return cls(model, device)

    def infer(self, pixels: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode():
            outputs = self._model(pixels.contiguous().to(self._device))
        return {name: values.cpu() for name, values in outputs.items()}
