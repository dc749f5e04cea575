"""Where models come from. A new source is a file beside this one and a line in SOURCES.

Each module has the same functions, all of which raise ConfigError:

    load_network(recipe)                 the network in eval mode (None for an ONNX file), the source that rebuilds it
    find_preprocessing(recipe, network)  what `preprocessing: auto` means
    find_labels(recipe, network)         what `labels: auto` means
    default_options(network)             options of a request that the model was built with

torchvision.py       torchvision's classifiers and detectors
timm.py              models of timm
huggingface.py       models of transformers
image_processors.py  what their image processors do, as our preprocessing
files.py             a Python file, a TorchScript file, an ONNX file
pillow.py            how the installed Pillow resizes
"""

from importlib import import_module
from types import ModuleType

from vision_serving.errors import ConfigError, how_to_install
from vision_serving.graphs.sources import SourceName

SOURCES: dict[SourceName, str] = {
    "torchvision": "mar_tools.models.sources.torchvision",
    "timm": "mar_tools.models.sources.timm",
    "huggingface": "mar_tools.models.sources.huggingface",
    "python": "mar_tools.models.sources.files",
    "torchscript": "mar_tools.models.sources.files",
    "onnx": "mar_tools.models.sources.files",
}


def load_source(name: SourceName) -> ModuleType:
    """Raises ConfigError for a missing package."""
    try:
        return import_module(SOURCES[name])
    except ModuleNotFoundError as error:
        raise ConfigError(f"source {name!r} needs {how_to_install(error)}") from error
