"""ONNX Runtime on CPUs and NVIDIA GPUs. Artifact: `model.onnx`, with `model.onnx.data` beside it where there is one."""

from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

from vision_serving.config import BackendConfig
from vision_serving.errors import BackendError, foreign_code, last_line

REQUIREMENTS = "onnx"
DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntimeBackend:
    """One session. On a GPU the batch and the outputs stay there until they are asked for (I/O binding)."""

    device_types = ("cpu", "cuda")

    def __init__(self, session: onnxruntime.InferenceSession, device: torch.device) -> None:
        self._session = session
        self._device = device
        self._input_name = session.get_inputs()[0].name
        self._output_names = [output.name for output in session.get_outputs()]

    @classmethod
    def load(cls, artifact: Path, config: BackendConfig, device: torch.device) -> "OnnxRuntimeBackend":
        provider = PROVIDERS[device.type]
        if provider not in onnxruntime.get_available_providers():
            raise BackendError(f"this onnxruntime has no {provider}: pip install onnxruntime-gpu instead")
        chosen = [(provider, {"device_id": device.index or 0})] if device.type == "cuda" else [provider]
        with foreign_code(lambda error: BackendError(f"ONNX Runtime cannot load {artifact.name}: {last_line(error)}")):
            session = onnxruntime.InferenceSession(str(artifact), _session_options(config), providers=chosen)
        if provider not in session.get_providers():
            raise BackendError(
                f"ONNX Runtime could not use {provider}, see its log; the CPU instead would not be asked"
            )
        return cls(session, device)

    def infer(self, pixels: Tensor) -> dict[str, Tensor]:
        if self._device.type == "cpu":
            found = self._session.run(self._output_names, {self._input_name: pixels.contiguous().numpy()})
            return {name: torch.from_numpy(values) for name, values in zip(self._output_names, found, strict=True)}
        return self._infer_bound(pixels.contiguous().to(self._device))

    def _infer_bound(self, pixels: Tensor) -> dict[str, Tensor]:
        binding = self._session.io_binding()
        place = (self._device.type, self._device.index or 0)
        torch.cuda.current_stream(self._device).synchronize()  # the session computes on a stream of its own
        binding.bind_input(self._input_name, *place, "uint8", tuple(pixels.shape), pixels.data_ptr())
        for name in self._output_names:
            binding.bind_output(name, *place)
        self._session.run_with_iobinding(binding)
        found = binding.copy_outputs_to_cpu()
        return {name: torch.from_numpy(values) for name, values in zip(self._output_names, found, strict=True)}


def _session_options(config: BackendConfig) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = config.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # its warnings tell of graph optimisations, not of faults
    # Spinning threads would take the cores from decoding and from the server between two batches.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
