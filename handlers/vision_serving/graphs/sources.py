"""Rebuild a network from what an archive or recipe says: a torchvision builder, or a class in a Python file."""

import inspect
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator
from torch import nn

from vision_serving.config import StrictModel
from vision_serving.errors import ConfigError


class NetworkSource(StrictModel):
    """How to construct a network without its weights.

    torchvision  `name` is a builder of torchvision.models or torchvision.models.detection
    python       `file` is a Python file; `class` is a class or function in it that gives the nn.Module
    """

    source: Literal["torchvision", "python"]
    name: str | None = None
    file: str | None = None
    class_name: str | None = Field(default=None, alias="class")
    arguments: dict[str, Any] = Field(default={})
    norm_eps: float | None = None

    @model_validator(mode="after")
    def _has_what_its_source_needs(self) -> "NetworkSource":
        needed = {"torchvision": ("name",), "python": ("file", "class")}[self.source]
        given = {"name": self.name, "file": self.file, "class": self.class_name}
        for key, value in given.items():
            if (key in needed) != (value is not None):
                verb = "needs" if key in needed else "does not take"
                raise ValueError(f"source {self.source!r} {verb} {key!r}")
        return self


def build_network(source: NetworkSource, folder: Path) -> nn.Module:
    """The network with untrained weights, in eval mode. `folder` is where a Python file is looked up.

    Raises ConfigError for an unknown builder, a missing file or class, and arguments that do not fit.
    """
    network = BUILDERS[source.source](source, folder)
    if source.norm_eps is not None:
        set_norm_eps(network, source.norm_eps)
    return network.eval()


def _build_torchvision(source: NetworkSource, _: Path) -> nn.Module:
    from torchvision import models

    if source.name not in models.list_models():
        raise ConfigError(f"unknown torchvision model {source.name!r}; `torchvision.models.list_models()` names them")
    builder = models.get_model_builder(source.name)
    parameters = inspect.signature(builder).parameters
    arguments: dict[str, Any] = {"weights": None}
    if "weights_backbone" in parameters:
        arguments["weights_backbone"] = None
    return _call(builder, {**arguments, **source.arguments}, f"torchvision model {source.name!r}")


def _build_from_file(source: NetworkSource, folder: Path) -> nn.Module:
    path = folder / str(source.file)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; `file` of a python source is looked up beside the recipe")
    module = types.ModuleType(f"network_source_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses with postponed annotations look their module up there
    try:
        # Not imported: that would write bytecode beside the file, into an artifact whose bytes are verified.
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:  # the file is the user's: whatever it raises, it cannot be used
        del sys.modules[module.__name__]
        raise ConfigError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    factory = getattr(module, str(source.class_name), None)
    if factory is None:
        own = (n for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__)
        public = sorted(name for name in own if not name.startswith("_"))
        raise ConfigError(f"{path} has no {source.class_name!r}; it has {public}")
    return _call(factory, source.arguments, f"{source.class_name!r} of {path}")


BUILDERS: dict[str, Callable[[NetworkSource, Path], nn.Module]] = {
    "torchvision": _build_torchvision,
    "python": _build_from_file,
}


def _call(factory: Callable[..., Any], arguments: dict[str, Any], what: str) -> nn.Module:
    try:
        network = factory(**arguments)
    except Exception as error:  # the code is the user's
        raise ConfigError(f"{what} cannot be built with {arguments}: {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{what} gave a {type(network).__name__}; expected a torch.nn.Module")
    return network


def set_norm_eps(network: nn.Module, eps: float) -> None:
    """Some published torchvision detectors were trained with a batch-norm epsilon of 0, which no state dict records."""
    for module in network.modules():
        if type(module).__name__ in ("BatchNorm2d", "FrozenBatchNorm2d"):
            module.eps = eps  # type: ignore[assignment]
