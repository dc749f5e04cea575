"""The exporters by backend name. A new one is a file beside this one and a line in EXPORTERS.

    base.py           what every exporter states, is given and tells

Each module states what it can make, as literals, and makes it:

    PRECISIONS               its precisions for each kind of device, each with its rank
    ONNX_PRECISIONS          its precisions of a model that is an ONNX file; without it, the backend takes none
    export(job, folder)      writes the artifact into the folder and returns `Exported`

The statements are read from the source and not imported: a module imports its runtime, which may be missing here.
"""

from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from vision_serving.backends import missing_package
from vision_serving.config import DeviceType, Precision
from vision_serving.errors import BackendError
from vision_serving.source_constants import read_constant

BackendAndPrecision = tuple[str, Precision]
EAGER_FP32: BackendAndPrecision = ("eager", "fp32")  # the reference

EXPORTERS = {
    "eager": "mar_tools.exporting.exporters.eager",
    "torchscript": "mar_tools.exporting.exporters.torchscript",
    "torch_compile": "mar_tools.exporting.exporters.torch_compile",
    "aotinductor": "mar_tools.exporting.exporters.aotinductor",
    "onnxruntime": "mar_tools.exporting.exporters.onnxruntime",
    "openvino": "mar_tools.exporting.exporters.openvino",
    "tensorrt": "mar_tools.exporting.exporters.tensorrt",
    "tvm": "mar_tools.exporting.exporters.tvm",
}


def list_candidates(device_type: DeviceType) -> list[BackendAndPrecision]:
    """Return every (backend, precision) pair for a device, the most promising first."""
    ranks: dict[BackendAndPrecision, int] = {
        (backend, precision): rank
        for backend in EXPORTERS
        for precision, rank in read_statement(backend, "PRECISIONS").get(device_type, {}).items()
    }
    return sorted(ranks, key=lambda pair: ranks[pair])


def onnx_precisions(backend: str) -> tuple[Precision, ...]:
    """Return in what a backend computes a model that is an ONNX file; nothing where it takes none."""
    precisions: tuple[Precision, ...] = read_statement(backend, "ONNX_PRECISIONS") or ()
    return precisions


@cache
def read_statement(backend: str, name: str) -> Any:
    """Return what an exporter's file states, None where it says nothing."""
    return read_constant(Path(__file__).with_name(f"{backend}.py"), name)


def load_exporter(backend: str, precision: str, device_type: DeviceType = "cpu") -> ModuleType:
    """Raises BackendError for an unknown backend, a precision it does not have there, or a missing package."""
    find_candidates(backend, precision, device_type)
    try:
        return import_module(EXPORTERS[backend])
    except ModuleNotFoundError as error:
        raise missing_package(backend, error) from error


def find_candidates(backend: str, precision: str, device_type: DeviceType) -> list[BackendAndPrecision]:
    """Return the pairs that a recipe's backend and precision, or `auto`, leave. Raises BackendError."""
    if backend not in ("auto", *EXPORTERS):
        raise BackendError(f"unknown backend {backend!r}; expected one of {['auto', *EXPORTERS]}")
    of_backend = [pair for pair in list_candidates(device_type) if backend in ("auto", pair[0])]
    if not of_backend:
        raise BackendError(f"backend {backend!r} does not run on {device_type}; choose another backend or device")
    found = [pair for pair in of_backend if precision in ("auto", pair[1])]
    if not found:
        has = [choice for _, choice in of_backend]
        raise BackendError(f"backend {backend!r} has no precision {precision!r} on {device_type}; it has {has}")
    return found
