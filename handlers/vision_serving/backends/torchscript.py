"""TorchScript: a traced and frozen graph. Artifact: `model.pt`, traced for one kind of device and one precision."""

import zipfile
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from vision_serving.config import BackendConfig
from vision_serving.errors import BackendError, ConfigError, last_line
from vision_serving.graphs.torchscript_files import load_torchscript

OPERATORS_ENTRY = "operators.txt"  # names the packages that register the operators which the graph calls


class TorchScriptBackend:
    """The graph that was traced, with PyTorch's fusions for inference on CPUs."""

    device_types = ("cpu", "cuda")

    def __init__(self, artifact: Path, graph: nn.Module, device: torch.device) -> None:
        self._artifact = artifact
        self._graph = graph
        self._device = device

    @classmethod
    def load(cls, artifact: Path, config: BackendConfig, device: torch.device) -> "TorchScriptBackend":
        graph = load_graph(artifact, device, optimize=device.type == "cpu" and config.precision == "fp32")
        return cls(artifact, graph, device)

    def infer(self, pixels: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode():
            outputs = self._graph(pixels.to(self._device))
        return {name: values.cpu() for name, values in outputs.items()}

    @cached_property
    def _traced(self) -> nn.Module:
        """Return the graph as exported, read at the first explanation. A graph fused for inference has no gradients."""
        return load_graph(self._artifact, self._device, optimize=False)

    def differentiate(self, pixels: Tensor) -> dict[str, Tensor]:
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]  # else it profiles and compiles: seconds, for a few inferences
            outputs: dict[str, Tensor] = self._traced(pixels.to(self._device))
        return outputs


def load_graph(artifact: Path, device: torch.device, *, optimize: bool) -> nn.Module:
    """Raises BackendError."""
    try:
        import_operators(artifact)
        graph = load_torchscript(artifact, device).eval()
        return torch.jit.optimize_for_inference(graph) if optimize else graph
    except (ConfigError, RuntimeError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise BackendError(f"TorchScript cannot load {artifact.name}: {last_line(error)}") from error


def import_operators(artifact: Path) -> None:
    """Import torchvision's NMS and RoIAlign where they are needed; a classifier never needs that second."""
    with zipfile.ZipFile(artifact) as archive:
        entry = next((name for name in archive.namelist() if name.endswith(f"extra/{OPERATORS_ENTRY}")), None)
        if entry is None:
            raise BackendError(f"{artifact.name}: no {OPERATORS_ENTRY} inside; export the model with this project")
        needed = archive.read(entry).decode().split()
    if "torchvision" in needed:
        import torchvision  # noqa: F401
