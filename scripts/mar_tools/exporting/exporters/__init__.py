"""The exporters by backend name, and what each can make. A new one is a file, a line in EXPORTERS and its CANDIDATES.

Each module has `export(job, folder) -> Exported`, which writes the artifact into the folder.
"""

from importlib import import_module
from types import ModuleType

from vision_serving.backends import missing_package
from vision_serving.config import DeviceType, Precision
from vision_serving.errors import BackendError

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

# All that there is, the most promising first: a build may run out of its time budget.
CANDIDATES: dict[DeviceType, tuple[tuple[str, Precision], ...]] = {
    "cpu": (
        ("openvino", "int8"),
        ("openvino", "bf16"),
        ("aotinductor", "int8"),
        ("aotinductor", "bf16"),
        ("onnxruntime", "int8"),
        ("openvino", "fp32"),
        ("aotinductor", "fp32"),
        ("onnxruntime", "fp32"),
        ("torchscript", "bf16"),
        ("torchscript", "fp32"),
        ("eager", "bf16"),
        ("eager", "fp32"),
        ("torch_compile", "bf16"),
        ("torch_compile", "fp32"),
        ("tvm", "fp32"),
    ),
    "cuda": (
        ("tensorrt", "int8"),
        ("tensorrt", "fp16"),
        ("tensorrt", "bf16"),
        ("aotinductor", "fp16"),
        ("aotinductor", "bf16"),
        ("onnxruntime", "fp16"),
        ("torch_compile", "fp16"),
        ("torch_compile", "bf16"),
        ("torchscript", "fp16"),
        ("torchscript", "bf16"),
        ("eager", "fp16"),
        ("eager", "bf16"),
        ("tensorrt", "fp32"),
        ("aotinductor", "fp32"),
        ("onnxruntime", "fp32"),
        ("torch_compile", "fp32"),
        ("torchscript", "fp32"),
        ("eager", "fp32"),
    ),
}


def load_exporter(backend: str, precision: str, device_type: DeviceType = "cpu") -> ModuleType:
    """Raises BackendError for an unknown backend, a precision it does not have there, or a missing package."""
    find_candidates(backend, precision, device_type)
    try:
        return import_module(EXPORTERS[backend])
    except ModuleNotFoundError as error:
        raise missing_package(backend, error) from error


def find_candidates(backend: str, precision: str, device_type: DeviceType) -> list[tuple[str, Precision]]:
    """(backend, precision) pairs that a recipe's choice, with `auto`, leaves. Raises BackendError when none is left."""
    if backend not in ("auto", *EXPORTERS):
        raise BackendError(f"unknown backend {backend!r}; expected one of {['auto', *EXPORTERS]}")
    of_backend = [pair for pair in CANDIDATES[device_type] if backend in ("auto", pair[0])]
    if not of_backend:
        raise BackendError(f"backend {backend!r} does not run on {device_type}; choose another backend or device")
    found = [pair for pair in of_backend if precision in ("auto", pair[1])]
    if not found:
        has = [choice for _, choice in of_backend]
        raise BackendError(f"backend {backend!r} has no precision {precision!r} on {device_type}; it has {has}")
    return found
