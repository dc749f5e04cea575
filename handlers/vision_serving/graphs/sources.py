"""Rebuild a network from what an archive or recipe says: by the name of a library's model, or from a file."""

import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vision_serving.errors import ConfigError, foreign_code, how_to_install
from vision_serving.graphs.fake_quantization import Activations, insert_fake_quantization
from vision_serving.graphs.fixed_batches import FixedBatchNetwork
from vision_serving.graphs.heads import Head, replace_heads
from vision_serving.graphs.inputs import SizeInput
from vision_serving.graphs.outputs import OutputFormat
from vision_serving.graphs.python_files import find_file, load_attribute
from vision_serving.graphs.torchscript_files import load_torchscript
from vision_serving.validation import StrictModel

SourceName = Literal["torchvision", "timm", "huggingface", "python", "torchscript", "onnx"]
# source: (keys that it needs, keys that it may have)
SOURCE_KEYS: dict[SourceName, tuple[set[str], set[str]]] = {
    "torchvision": ({"name"}, {"arguments", "head", "shapes", "fake_quantization", "output"}),
    "timm": ({"name"}, {"arguments", "head", "shapes", "fake_quantization", "output"}),
    "huggingface": ({"name"}, {"class", "arguments", "output"}),
    "python": ({"file", "class"}, {"arguments", "shapes", "fake_quantization", "inputs", "output"}),
    "torchscript": ({"file"}, {"inputs", "output"}),
    "onnx": ({"file"}, {"inputs", "output"}),
}
HOLDS_WEIGHTS = {"torchscript", "onnx"}
LIBRARY_OUTPUT = {"activation", "pool"}  # what can be said of the outputs of models that a library knows


class NetworkSource(StrictModel):
    """How to construct a network without its weights.

    torchvision  `name` is a builder of torchvision.models or torchvision.models.detection
    timm         `name` is a model of timm, a tag perhaps after a dot
    huggingface  `name` is a folder or a model of the hub, which only building reads; in an archive `class` is a
                 class of transformers, mostly an Auto class, and `arguments` its whole configuration
    python       `file` is a Python file, which may be one of a package; `class` is a class or function in it that gives
                 the nn.Module
    torchscript  `file` was written by `torch.jit.save`, weights inside
    onnx         `file` is an ONNX model, weights inside or beside it

    head    layers in the place of parts of a library's network, by the name of the part
    shapes  `weights`: those of its layers are those of its weights, as structured pruning leaves them
    fake_quantization  how its layers round, with scales that are among its weights, as quantisation-aware training
                       leaves them
    inputs       what the network takes beside the images, by name, and in that order where inputs have no names
    """

    source: SourceName
    name: str | None = None
    file: str | None = None
    class_name: str | None = Field(default=None, alias="class")
    arguments: dict[str, Any] = Field(default={})
    head: dict[str, Head] = Field(default={})
    shapes: Literal["weights"] | None = None
    fake_quantization: Activations | None = None
    norm_eps: float | None = None
    without_head: bool = False
    inputs: dict[str, SizeInput] = Field(default={})
    fixed_batch: Annotated[int, Field(gt=0)] | None = None
    output: OutputFormat = OutputFormat()

    @model_validator(mode="after")
    def _has_what_its_source_needs(self) -> "NetworkSource":
        needed, optional = SOURCE_KEYS[self.source]
        values = {
            "name": self.name,
            "file": self.file,
            "class": self.class_name,
            "arguments": self.arguments,
            "head": self.head,
            "shapes": self.shapes,
            "fake_quantization": self.fake_quantization,
            "inputs": self.inputs,
            "output": self.output != OutputFormat(),
        }
        given = {key for key, value in values.items() if value}
        for keys, verb in ((needed - given, "needs"), (given - needed - optional, "does not take")):
            if keys:
                raise ValueError(f"source {self.source!r} {verb} {' and '.join(repr(key) for key in sorted(keys))}")
        if self.source in ("torchvision", "timm"):
            check_library_output(self.source, self.output)
        return self

    def located_in(self, folder: Path) -> "NetworkSource":
        """Return it with the paths of its output starting at `folder`."""
        return self.model_copy(update={"output": self.output.located_in(folder)})

    @property
    def holds_weights(self) -> bool:
        """Return whether building the network gives it its weights, too."""
        return self.source in HOLDS_WEIGHTS


def check_library_output(source: SourceName, output: OutputFormat) -> None:
    """Raises ValueError for what the library tells itself."""
    known = [] if output.decode else sorted(output.model_dump(exclude_none=True).keys() - LIBRARY_OUTPUT)
    if known:
        raise ValueError(f"output of source {source!r} takes {sorted(LIBRARY_OUTPUT)}, not {known}: the library has it")


def build_network(source: NetworkSource, folder: Path) -> nn.Module:
    """Return the network in eval mode, with untrained weights unless its file holds them.

    `folder` is where `file` lies.

    Raises ConfigError for an unknown builder, a missing package, file or class, and arguments that do not fit.
    """
    try:
        network = BUILDERS[source.source](source, folder)
    except ModuleNotFoundError as error:
        raise ConfigError(f"source {source.source!r} needs {how_to_install(error)}") from error
    replace_heads(network, source.head)
    if source.norm_eps is not None:
        set_norm_eps(network, source.norm_eps)
    if source.without_head:
        remove_head(network)
    if source.fake_quantization is not None:
        insert_fake_quantization(network, source.fake_quantization)
    if source.fixed_batch is not None:
        network = FixedBatchNetwork(network, source.fixed_batch)
    return network.eval()


def _build_torchvision(source: NetworkSource, _: Path) -> nn.Module:
    from torchvision import models

    if source.name not in models.list_models():
        near = get_close_matches(str(source.name), models.list_models(), 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "`torchvision.models.list_models()` names them"
        raise ConfigError(f"unknown torchvision model {source.name!r}; {hint}")
    builder = models.get_model_builder(source.name)
    parameters = inspect.signature(builder).parameters
    arguments: dict[str, Any] = {"weights": None}
    if "weights_backbone" in parameters:
        arguments["weights_backbone"] = None
    return _call(builder, {**arguments, **source.arguments}, f"torchvision model {source.name!r}")


def _build_timm(source: NetworkSource, _: Path) -> nn.Module:
    timm = import_module("timm")
    architecture, _, _ = str(source.name).partition(".")
    if not timm.is_model(architecture):
        raise ConfigError(f"unknown timm model {source.name!r}; `timm.list_models()` names them")
    arguments = {"model_name": source.name, "pretrained": False, **source.arguments}
    return _call(timm.create_model, arguments, f"timm model {source.name!r}")


def _build_huggingface(source: NetworkSource, _: Path) -> nn.Module:
    """Build from the configuration alone: nothing is read from the hub."""
    transformers = import_module("transformers")
    own_class = getattr(transformers, str(source.class_name), None)
    model_type = source.arguments.get("model_type")
    if own_class is None or model_type not in transformers.CONFIG_MAPPING:
        raise ConfigError(
            f"transformers {transformers.__version__} has no {source.class_name!r} of model type {model_type!r}"
        )
    config = transformers.CONFIG_MAPPING[model_type].from_dict(source.arguments)
    if getattr(config, "use_pretrained_backbone", False):
        config.use_pretrained_backbone = False  # it would be downloaded
    is_auto = hasattr(own_class, "from_config")
    arguments = {"config": config, "trust_remote_code": False} if is_auto else {"config": config}
    return _call(own_class.from_config if is_auto else own_class, arguments, f"huggingface model {source.name!r}")


def _build_from_file(source: NetworkSource, folder: Path) -> nn.Module:
    factory = load_attribute(folder, str(source.file), str(source.class_name))
    return _call(factory, source.arguments, f"{source.class_name!r} of {folder / str(source.file)}")


def _load_torchscript(source: NetworkSource, folder: Path) -> nn.Module:
    return load_torchscript(find_file(folder, str(source.file)), torch.device("cpu"))


def _load_onnx(source: NetworkSource, folder: Path) -> nn.Module:
    from vision_serving.graphs.onnx_network import OnnxNetwork

    return OnnxNetwork(find_file(folder, str(source.file)), source.inputs)


BUILDERS: dict[SourceName, Callable[[NetworkSource, Path], nn.Module]] = {
    "torchvision": _build_torchvision,
    "timm": _build_timm,
    "huggingface": _build_huggingface,
    "python": _build_from_file,
    "torchscript": _load_torchscript,
    "onnx": _load_onnx,
}


def _call(factory: Callable[..., Any], arguments: dict[str, Any], what: str) -> nn.Module:
    def explain(error: BaseException) -> ConfigError:
        return ConfigError(f"{what} cannot be built with {str(arguments)[:200]}: {type(error).__name__}: {error}")

    with foreign_code(explain, passed_on=(ModuleNotFoundError,)):
        network = factory(**arguments)
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{what} gave a {type(network).__name__}; expected a torch.nn.Module")
    return network


def load_state(network: nn.Module, state: Mapping[str, Tensor], strict: bool = True) -> None:
    """Give a network its weights. Raises RuntimeError where they do not fit.

    MNASNet asks which version of itself wrote them; a safetensors file does not say, so it is the one at hand.
    """
    versioned = OrderedDict(state)
    versioned._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]
    network.load_state_dict(versioned, strict=strict)


def set_norm_eps(network: nn.Module, eps: float) -> None:
    """Set the batch-norm epsilon of 0 that some published torchvision detectors had, which no state dict records."""
    for module in network.modules():
        if type(module).__name__ in ("BatchNorm2d", "FrozenBatchNorm2d"):
            module.eps = eps  # type: ignore[assignment]


def remove_head(network: nn.Module) -> None:
    """Let a classifier of torchvision give what its last linear layer is given. Raises ConfigError without one."""
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise ConfigError(
            f"{type(network).__name__} has no linear layer at its end, before which its embedding would be; give a "
            "Python file with a network that returns the vector"
        )
    network.set_submodule(layers[-1], nn.Identity())
