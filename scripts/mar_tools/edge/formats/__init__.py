"""The formats by name. A new one is a file beside this one, a README in `carried/readme/` and a line in FORMATS.

    base.py         what every format states and is given
    onnx_weights.py the ONNX file of a build, in int8 with weights of 8 bits
    outer_layers.py the layers at both ends, which int8 leaves in float
    quantizing.py   int8 by PT2E, for formats that take a program of `torch.export`

Each module states what it can make, as literals, and makes it:

    PRECISIONS                      its precisions
    REQUIREMENTS                    requirements/<that>.txt brings what it needs here
    CARRIED                         files of `carried/` -> their names in the folder
    write(job, folder, announce)    writes the artifact and returns `Written`
    open_runtime(folder, announce)  yields the folder's model, run by the format's own runtime
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from vision_serving.errors import BackendError, ConfigError, how_to_install
from vision_serving.source_constants import read_constant

FORMATS = {
    "executorch": "mar_tools.edge.formats.executorch",
    "litert": "mar_tools.edge.formats.litert",
    "onnx-web": "mar_tools.edge.formats.onnx_web",
    "ort": "mar_tools.edge.formats.ort",
}


def load_format(name: str, precision: str) -> ModuleType:
    """Return a format's module. Raises ConfigError for what there is not, BackendError for a missing package."""
    if name not in FORMATS:
        raise ConfigError(f"unknown format {name!r}; expected one of {list(FORMATS)}")
    precisions = read_statement(name, "PRECISIONS")
    if precision not in precisions:
        raise ConfigError(f"format {name!r} has no precision {precision!r}; it has {list(precisions)}")
    try:
        return import_module(FORMATS[name])
    except ModuleNotFoundError as error:
        requirements = read_statement(name, "REQUIREMENTS")
        raise BackendError(f"format {name!r} needs {how_to_install(error, requirements)}") from error


def read_statement(name: str, statement: str) -> Any:
    """Return what a format's file states, None where it says nothing."""
    return read_constant(Path(__file__).with_name(f"{FORMATS[name].rpartition('.')[2]}.py"), statement)
