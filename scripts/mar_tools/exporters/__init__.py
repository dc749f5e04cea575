"""The exporters by backend name. A new one is a file beside this one and a line in EXPORTERS.

Each module has `PRECISIONS` and `export(job, folder) -> str`, which writes the artifact into the folder and names it.
"""

from importlib import import_module
from types import ModuleType

from vision_serving.errors import BackendError

EXPORTERS = {
    "eager": "mar_tools.exporters.eager",
    "openvino": "mar_tools.exporters.openvino",
}


def load_exporter(backend: str, precision: str) -> ModuleType:
    """Raises BackendError for an unknown backend, a precision it does not have, or a missing package."""
    if backend not in EXPORTERS:
        raise BackendError(f"unknown backend {backend!r}; expected one of {['auto', *EXPORTERS]}")
    try:
        exporter = import_module(EXPORTERS[backend])
    except ModuleNotFoundError as error:
        raise BackendError(f"backend {backend!r} needs the package {error.name!r}: pip install {error.name}") from error
    if precision not in exporter.PRECISIONS:
        raise BackendError(f"backend {backend!r} has no precision {precision!r}; it has {list(exporter.PRECISIONS)}")
    return exporter


def candidates(backend: str, precision: str) -> list[tuple[str, str]]:
    """(backend, precision) pairs that a recipe's choice, with `auto`, leaves. Raises BackendError when none is left."""
    backends = list(EXPORTERS) if backend == "auto" else [backend]
    pairs = [
        (name, choice)
        for name in backends
        for choice in load_exporter(name, "fp32").PRECISIONS
        if precision in ("auto", choice)
    ]
    if not pairs:
        load_exporter(backends[0], precision)  # says which precisions there are
    return pairs
