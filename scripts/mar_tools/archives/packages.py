"""The packages that an archive of ours needs to be served: known from its texts, before a worker tries to load it."""

import ast
import io
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import orjson

import vision_serving
from mar_tools.archives.archive import Archive
from mar_tools.archives.checks import read_handler_section
from vision_serving.config import HandlerConfig
from vision_serving.errors import ConfigError, how_to_install
from vision_serving.source_constants import read_constant

BACKENDS = Path(str(vision_serving.__file__)).with_name("backends")
# What builds the networks of a source, where an artifact is a network and no graph.
BUILDERS = {"torchvision": "torchvision", "timm": "timm", "huggingface": "transformers", "onnx": "onnxruntime"}
NETWORK = "source.json"  # of backends/eager.py, which cannot be imported without PyTorch
OPERATORS = "extra/operators.txt"  # of backends/torchscript.py


def require_packages(archive: Archive) -> None:
    """Raises ConfigError with the package that is missing here, and the command that brings it."""
    config = read_handler_section(archive)
    file = BACKENDS / f"{config.backend}.py"
    for name in [*_imports_of(file), *_operators(archive, config), *_builders(archive, config.artifact)]:
        if find_spec(name) is None:
            what = how_to_install(ModuleNotFoundError(name=name), read_constant(file, "REQUIREMENTS"))
            raise ConfigError(f"{archive.path}: its backend {config.backend!r} needs {what}")


def _imports_of(file: Path) -> list[str]:
    """Return the packages that the file of a backend imports at its top, without those of Python and ours."""
    named: list[str] = []
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            named += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            named.append(str(node.module))
    packages = {name.partition(".")[0] for name in named}
    return sorted(packages - sys.stdlib_module_names - {"vision_serving"})


def _operators(archive: Archive, config: HandlerConfig) -> list[str]:
    """Return the packages whose operators a TorchScript graph calls."""
    if config.backend != "torchscript" or config.artifact not in archive.entries:
        return []
    with zipfile.ZipFile(io.BytesIO(archive.read(config.artifact))) as graph:
        found = [graph.read(name).decode() for name in graph.namelist() if name.endswith(OPERATORS)]
    return [name for text in found for name in text.split() if name == "torchvision"]


def _builders(archive: Archive, artifact: str) -> list[str]:
    """Return the package that builds the network of an artifact which is no graph."""
    entry = f"{artifact}/{NETWORK}"
    if entry not in archive.entries:
        return []
    source = orjson.loads(archive.read_document(entry))["network"]["source"]
    return [BUILDERS[source]] if source in BUILDERS else []
