"""OpenVINO on CPUs. Artifact: an OpenVINO IR, `model.xml` with `model.bin` beside it."""

import ctypes
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino.properties as properties
import openvino.properties.hint as hint
import torch
from numpy.typing import NDArray
from openvino.properties.device import capabilities
from torch import Tensor

from vision_serving.config import BackendConfig
from vision_serving.errors import BackendError, DeviceLostError, last_line
from vision_serving.foreign_errors import is_out_of_memory

DISTRIBUTIONS = ("openvino",)

logger = logging.getLogger(__name__)

# An int8 graph says itself where it is int8; this is the precision of the rest.
PRECISIONS = {"fp32": openvino.Type.f32, "int8": openvino.Type.f32, "bf16": openvino.Type.bf16}
MARK = np.frombuffer(b"\xad\xde\xc0\x7f", np.uint8)  # as a float32, one of the 16 million NaNs, and not the usual one
NEEDED_CAPABILITY = {"bf16": "BF16"}


class SignalStack(ctypes.Structure):
    """Linux's `stack_t`."""

    _fields_ = (("ss_sp", ctypes.c_void_p), ("ss_flags", ctypes.c_int), ("ss_size", ctypes.c_size_t))


@contextmanager
def keep_signal_stack() -> Iterator[None]:
    """Give this thread back the stack on which it handled signals before.

    OpenVINO's CPU plugin, one for each Core, brings a stack of its own and, when it is freed, puts back the one before,
    which may be that of a plugin that is gone by then. The next signal that Python handles, such as Ctrl-C, is a crash.
    """
    if sys.platform != "linux":
        yield
        return
    former, set_stack = SignalStack(), ctypes.CDLL(None).sigaltstack
    set_stack(None, ctypes.byref(former))
    try:
        yield
    finally:
        set_stack(ctypes.byref(former), None)


class OpenVinoBackend:
    """One compiled model and one infer request: a worker runs one batch at a time."""

    device_types = ("cpu",)

    def __init__(self, compile_request: Callable[[], tuple[openvino.InferRequest, list[str]]]) -> None:
        self._compile_request = compile_request
        self._request: openvino.InferRequest | None
        self._request, self._output_names = compile_request()
        self._lost = False

    @classmethod
    @keep_signal_stack()
    def load(cls, artifact: Path, config: BackendConfig, device: torch.device) -> "OpenVinoBackend":
        core = openvino.Core()
        needed = NEEDED_CAPABILITY.get(config.precision)
        if needed is not None and needed not in core.get_property("CPU", capabilities):
            raise BackendError(
                f"this CPU has no {needed} arithmetic, so precision {config.precision!r} would not be what was "
                "verified; build the model with --precision fp32"
            )
        return cls(partial(_compile, core, artifact, config))

    def infer(self, pixels: Tensor) -> dict[str, Tensor]:
        if self._lost:
            raise DeviceLostError
        if self._request is None:
            self._request, _ = self._compile_request()
        self._mark_outputs(self._request)
        try:
            self._request.infer([pixels.contiguous().numpy()], share_inputs=True)
        except (RuntimeError, MemoryError) as error:
            # A compiled model keeps the size that it could not get, and fails with every batch after it.
            if is_out_of_memory(error):
                self._request = None
            raise
        # Copied: the request's output buffers belong to the next batch.
        outputs = [self._request.get_output_tensor(index).data.copy() for index in range(len(self._output_names))]
        if any(len(output) != len(pixels) or _is_marked(output) for output in outputs):
            logger.error(
                "OpenVINO computed nothing and raised nothing, as it does with one thread where it gets no memory"
            )
            self._lost = True  # the next batch could be a crash
            raise DeviceLostError
        return {name: torch.from_numpy(output) for name, output in zip(self._output_names, outputs, strict=True)}

    def _mark_outputs(self, request: openvino.InferRequest) -> None:
        """Mark the outputs: with one thread, a request without memory silently leaves the last batch's answer."""
        for index in range(len(self._output_names)):
            end = _end_of(request.get_output_tensor(index).data)
            end[:] = MARK[: len(end)]


def _is_marked(output: NDArray[Any]) -> bool:
    return _end_of(output).tobytes() == MARK.tobytes()


def _end_of(output: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the first four bytes of its last number, as a view; none where there is no number, or a smaller one."""
    end: NDArray[np.uint8] = output.reshape(-1)[-1:].view(np.uint8)[:4]
    return end if len(end) == len(MARK) else end[:0]


def _compile(core: openvino.Core, artifact: Path, config: BackendConfig) -> tuple[openvino.InferRequest, list[str]]:
    """Return an infer request, and the names of its outputs. Raises BackendError."""
    try:
        model = core.read_model(artifact)
        compiled = core.compile_model(model, "CPU", _compile_properties(config))
    except RuntimeError as error:
        raise BackendError(f"OpenVINO cannot load {artifact.name}: {last_line(error)}") from error
    # The model's own names: compiling fuses nodes and may give an output a second one, which `any_name` then picks.
    return compiled.create_infer_request(), [output.any_name for output in model.outputs]


def _compile_properties(config: BackendConfig) -> dict[str, object]:
    return {
        hint.inference_precision(): PRECISIONS[config.precision],
        hint.performance_mode(): hint.PerformanceMode.LATENCY,
        properties.inference_num_threads(): config.threads,
        properties.num_streams(): 1,
        # Two workers that pin their threads land on the same cores.
        hint.enable_cpu_pinning(): config.pin_threads,
    }
