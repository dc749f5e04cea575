"""The backends by name. A new one is a file beside this one and a line in BACKENDS.

    base.py           the protocol of a backend

A file may state two things, as literals that are read from its source:

    REQUIREMENTS      requirements/<this>.txt brings its runtime, where requirements.txt does not
    DISTRIBUTIONS     the packages whose versions a model card lists
"""

import sys
from importlib import import_module
from pathlib import Path

import torch

from vision_serving.backends.base import Backend
from vision_serving.config import BackendConfig
from vision_serving.cores import cpu_features
from vision_serving.errors import BackendError, MissingPackageError, how_to_install
from vision_serving.source_constants import read_constant

# OpenVINO and NNCF tell Google Analytics, in forks of this process, that they are imported and what they convert.
# Without this package they tell nobody.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

BACKENDS = {
    "eager": "vision_serving.backends.eager:EagerBackend",
    "torchscript": "vision_serving.backends.torchscript:TorchScriptBackend",
    "torch_compile": "vision_serving.backends.torch_compile:TorchCompileBackend",
    "aotinductor": "vision_serving.backends.aotinductor:AotInductorBackend",
    "onnxruntime": "vision_serving.backends.onnxruntime:OnnxRuntimeBackend",
    "openvino": "vision_serving.backends.openvino:OpenVinoBackend",
    "tensorrt": "vision_serving.backends.tensorrt:TensorRtBackend",
    "tvm": "vision_serving.backends.tvm:TvmBackend",
}


def find_backend(name: str) -> type[Backend]:
    """Raises BackendError for an unknown backend or a missing package."""
    if name not in BACKENDS:
        raise BackendError(f"unknown backend {name!r}; expected one of {sorted(BACKENDS)}")
    module_name, _, class_name = BACKENDS[name].partition(":")
    try:
        backend_class: type[Backend] = getattr(import_module(module_name), class_name)
    except ModuleNotFoundError as error:
        raise missing_package(name, error) from error
    return backend_class


def missing_package(backend: str, error: ModuleNotFoundError) -> MissingPackageError:
    """Return the error that says what to install."""
    requirements = read_constant(Path(__file__).with_name(f"{backend}.py"), "REQUIREMENTS")
    return MissingPackageError(f"backend {backend!r} needs {how_to_install(error, requirements)}")


def load_backend(name: str, artifact: Path, config: BackendConfig, device: torch.device) -> Backend:
    """Load an artifact. Raises BackendError when the backend is not there, not for this device, or cannot load it."""
    backend_class = find_backend(name)
    if device.type not in backend_class.device_types:
        raise BackendError(f"backend {name!r} runs on {backend_class.device_types}, got device {str(device)!r}")
    if not artifact.exists():
        raise BackendError(f"{artifact}: no such artifact")
    missing = sorted(set(config.cpu_features) - cpu_features())
    if missing:
        raise BackendError(
            f"this CPU lacks {missing}, with which {config.precision} was verified, so the answers could differ; "
            "build the model on this kind of machine, or with --precision fp32"
        )
    return backend_class.load(artifact, config, device)
