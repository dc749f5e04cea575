"""The one thing that varies between runtimes."""

from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

import orjson
import torch
from torch import Tensor

from vision_serving.config import BackendConfig
from vision_serving.errors import BackendError
from vision_serving.graphs.fixed_batches import run_in_parts
from vision_serving.validation import ConfigModel, parse_config


class LoadedBackend(Protocol):
    """Runs an artifact."""

    def infer(self, pixels: Tensor) -> dict[str, Tensor]:
        """Turn uint8 (N, H, W, 3) RGB into named outputs on the CPU, N first."""


class Backend(LoadedBackend, Protocol):
    """Runs one artifact on one device, of one of its `device_types`."""

    device_types: ClassVar[tuple[str, ...]]

    @classmethod
    def load(cls, artifact: Path, config: BackendConfig, device: torch.device) -> "Backend":
        """Raises BackendError when the artifact cannot run here with this precision."""


class FixedBatchBackend:
    """A backend whose artifact takes `size` images at a time, in the place of one that takes any number."""

    def __init__(self, backend: LoadedBackend, size: int) -> None:
        self._backend = backend
        self._size = size

    def infer(self, pixels: Tensor) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = run_in_parts(self._backend.infer, self._size, pixels)
        return outputs


@runtime_checkable
class DifferentiableBackend(Protocol):
    """A backend that can also tell how its outputs depend on the pixels."""

    def differentiate(self, pixels: Tensor) -> dict[str, Tensor]:
        """Turn RGB in 0..255, float (N, H, W, 3), into named outputs, on the backend's device."""


def read_document(path: Path, model: type[ConfigModel]) -> ConfigModel:
    """Read a JSON file of an artifact. Raises BackendError if unreadable, ConfigError if not of `model`."""
    try:
        document = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise BackendError(f"{path.parent.name}: no readable {path.name} ({error})") from error
    return parse_config(model, document, path.name)
