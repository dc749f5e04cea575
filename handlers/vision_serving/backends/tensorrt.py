"""TensorRT on NVIDIA GPUs. Artifact: `model.engine`, and `model.json` with what it was built for and with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorrt
import torch
from torch import Tensor

from vision_serving.backends.base import read_document
from vision_serving.config import BackendConfig
from vision_serving.errors import BackendError
from vision_serving.validation import StrictModel

REQUIREMENTS = "tensorrt"
DISTRIBUTIONS = ("tensorrt",)
DTYPES = {
    tensorrt.DataType.FLOAT: torch.float32,
    tensorrt.DataType.HALF: torch.float16,
    tensorrt.DataType.BF16: torch.bfloat16,
    tensorrt.DataType.INT64: torch.int64,
    tensorrt.DataType.INT32: torch.int32,
    tensorrt.DataType.BOOL: torch.bool,
}


class BuiltFor(StrictModel):
    """The content of `model.json`. An engine runs with the version and on the kind of GPU that it was built with."""

    tensorrt: str
    gpu: str
    compute_capability: tuple[int, int]


class Log(tensorrt.ILogger):  # type: ignore[misc]
    """Keeps the last thing that TensorRT says when it fails: its calls give None or False and no reason."""

    def __init__(self) -> None:
        tensorrt.ILogger.__init__(self)
        self.reason = "TensorRT gave no reason"

    def log(self, severity: "tensorrt.ILogger.Severity", message: str) -> None:
        if severity in (tensorrt.ILogger.Severity.ERROR, tensorrt.ILogger.Severity.INTERNAL_ERROR):
            self.reason = message.strip()[:300]


def create(kind: Callable[[Log], Any], log: Log) -> Any:
    """Return a `tensorrt.Runtime` or `tensorrt.Builder`. Raises BackendError where the driver does not fit."""
    try:
        return kind(log)
    except TypeError as error:  # how the bindings tell of a null pointer
        raise BackendError(f"TensorRT {tensorrt.__version__} does not start here: {log.reason}") from error


class TensorRtBackend:
    """One execution context with a CUDA stream of its own. A batch beyond the engine's largest runs in parts."""

    device_types = ("cuda",)

    def __init__(self, engine: "tensorrt.ICudaEngine", log: Log, device: torch.device) -> None:
        self._engine = engine
        self._context = engine.create_execution_context()
        if self._context is None:
            raise BackendError(f"TensorRT cannot start the engine: {log.reason}")
        self._log = log
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        is_input = [engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT for name in names]
        self._input_name = names[is_input.index(True)]
        self._output_names = [name for name, given in zip(names, is_input, strict=True) if not given]
        self._max_batch = engine.get_tensor_profile_shape(self._input_name, 0)[2][0]

    @classmethod
    def load(cls, artifact: Path, config: BackendConfig, device: torch.device) -> "TensorRtBackend":
        require_gpu()
        _check_built_for(artifact.with_suffix(".json"), device)
        log = Log()
        with torch.cuda.device(device):
            engine = create(tensorrt.Runtime, log).deserialize_cuda_engine(artifact.read_bytes())
            if engine is None:
                raise BackendError(f"TensorRT cannot load {artifact.name}: {log.reason}")
            return cls(engine, log, device)

    def infer(self, pixels: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode(), torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            batches = torch.split(pixels.contiguous(), self._max_batch)
            parts = [self._infer_part(batch) for batch in batches]
        return {name: torch.cat([part[name] for part in parts]) for name in self._output_names}

    def _infer_part(self, pixels: Tensor) -> dict[str, Tensor]:
        images = pixels.to(self._device)
        if not self._context.set_input_shape(self._input_name, tuple(images.shape)):
            raise BackendError(f"the engine has no profile for pixels {tuple(images.shape)}: {self._log.reason}")
        self._context.set_tensor_address(self._input_name, images.data_ptr())
        outputs = {name: self._new_output(name) for name in self._output_names}
        for name, values in outputs.items():
            self._context.set_tensor_address(name, values.data_ptr())
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise BackendError(f"TensorRT failed: {self._log.reason}")
        return {name: values.cpu() for name, values in outputs.items()}  # waits for the stream

    def _new_output(self, name: str) -> Tensor:
        shape = tuple(self._context.get_tensor_shape(name))
        if min(shape, default=0) < 0:
            raise BackendError(f"the size of output {name!r}, {shape}, depends on more than the size of the images")
        return torch.empty(shape, dtype=DTYPES[self._engine.get_tensor_dtype(name)], device=self._device)


def require_gpu() -> None:
    """Raises BackendError where PyTorch finds no NVIDIA GPU."""
    if not torch.cuda.is_available():
        raise BackendError("tensorrt needs an NVIDIA GPU here: PyTorch finds none (torch.cuda.is_available() is False)")


def describe_gpu(device: torch.device) -> BuiltFor:
    return BuiltFor(
        tensorrt=str(tensorrt.__version__),
        gpu=torch.cuda.get_device_name(device),
        compute_capability=torch.cuda.get_device_capability(device),
    )


def _check_built_for(path: Path, device: torch.device) -> None:
    built_for, here = read_document(path, BuiltFor), describe_gpu(device)
    if (built_for.tensorrt, built_for.compute_capability) != (here.tensorrt, here.compute_capability):
        raise BackendError(
            f"the engine was built with TensorRT {built_for.tensorrt} for {_in_words(built_for)}; here are TensorRT "
            f"{here.tensorrt} and {_in_words(here)}: build the model on this kind of machine"
        )


def _in_words(built_for: BuiltFor) -> str:
    return f"{built_for.gpu} (compute capability {'.'.join(map(str, built_for.compute_capability))})"
