"""PyTorch as it stands: the reference that every other backend is verified against.

Artifact: a folder with `source.json` (how to build the network), `model.safetensors` and the files that it names.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vision_serving.backends.base import read_document
from vision_serving.config import BackendConfig, PreprocessingConfig
from vision_serving.errors import BackendError
from vision_serving.graphs.construction import build_graph
from vision_serving.graphs.precisions import in_precision
from vision_serving.graphs.shapes import take_shapes
from vision_serving.graphs.sources import NetworkSource, build_network, load_state
from vision_serving.options import Task
from vision_serving.validation import StrictModel

SOURCE = "source.json"


class EagerSource(StrictModel):
    """The content of `source.json`."""

    task: Task
    preprocessing: PreprocessingConfig
    network: NetworkSource


class EagerBackend:
    """Runs the graph module itself, with the threads that `torch.set_num_threads` gave the process."""

    device_types = ("cpu", "cuda")

    def __init__(self, graph: nn.Module, device: torch.device) -> None:
        self._graph = graph
        self._device = device

    @classmethod
    def load(cls, artifact: Path, config: BackendConfig, device: torch.device) -> "EagerBackend":
        return cls(cls.load_graph(artifact, config, device), device)

    @staticmethod
    def load_graph(artifact: Path, config: BackendConfig, device: torch.device) -> nn.Module:
        """Return the graph on the device, in the precision. Raises BackendError or ConfigError."""
        if device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # torch's default for convolutions, which is not the fp32 verified
        source, network = read_artifact(artifact)
        output, inputs = source.network.output.located_in(artifact), source.network.inputs
        graph = build_graph(network, source.task, source.preprocessing, output, inputs)
        return in_precision(graph.to(device), config.precision, device.type)

    def infer(self, pixels: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode():
            outputs = self._graph(pixels.to(self._device))
        return {name: values.cpu() for name, values in outputs.items()}

    def differentiate(self, pixels: Tensor) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = self._graph(pixels.to(self._device))
        return outputs


def read_artifact(artifact: Path) -> tuple[EagerSource, nn.Module]:
    """Return the network in eval mode with its weights, on the CPU. Raises ConfigError or BackendError."""
    source = read_document(artifact / SOURCE, EagerSource)
    for file in (source.network.file, source.network.output.decode):
        if file is not None and not (artifact / file).resolve().is_relative_to(artifact.resolve()):
            raise BackendError(f"{SOURCE}: expected a file inside the artifact, got {file[:80]!r}")
    network = build_network(source.network, artifact)
    try:
        state = load_file(artifact / "model.safetensors")
        if source.network.shapes is not None:
            take_shapes(network, state)
        load_state(network, state, strict=not source.network.holds_weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise BackendError(f"model.safetensors does not fit its source: {str(error).splitlines()[0]}") from error
    return source, network
