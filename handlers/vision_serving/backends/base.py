"""The one thing that varies between runtimes."""

from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from vision_serving.config import BackendConfig


class Backend(Protocol):
    """Runs one artifact on one device, of one of its `device_types`."""

    device_types: ClassVar[tuple[str, ...]]

    @classmethod
    def load(cls, artifact: Path, config: BackendConfig, device: torch.device) -> "Backend":
        """Raises BackendError when the artifact cannot run here with this precision."""

    def infer(self, pixels: Tensor) -> dict[str, Tensor]:
        """uint8 (N, H, W, 3) RGB -> named outputs on the CPU, N first."""
