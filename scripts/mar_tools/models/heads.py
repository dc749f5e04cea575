"""The sizes of a head's layers, from the weights that it will be given."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from mar_tools.models.weight_files import FileContent
from vision_serving.errors import ConfigError
from vision_serving.graphs.heads import Head, Layer, split_layer

# Layers with weights -> their arguments by the shape of the weight. Others are built without arguments.
SIZES: dict[str, Callable[[list[int]], dict[str, Any]]] = {
    "Linear": lambda shape: {"in_features": shape[1], "out_features": shape[0]},
    "Conv2d": lambda shape: {"in_channels": shape[1], "out_channels": shape[0], "kernel_size": shape[2:]},
    "BatchNorm1d": lambda shape: {"num_features": shape[0]},
    "BatchNorm2d": lambda shape: {"num_features": shape[0]},
    "LayerNorm": lambda shape: {"normalized_shape": shape},
}
WITH_BIAS = ("Linear", "Conv2d")


def complete_heads(heads: Mapping[str, Head], content: FileContent) -> dict[str, Head]:
    """Return them with all sizes, as an archive needs them. Raises ConfigError where the weights have no such layer."""
    return {name: _complete_head(name, head, content) for name, head in heads.items()}


def _complete_head(name: str, head: Head, content: FileContent) -> Head:
    if isinstance(head, tuple):
        return tuple(_complete_layer(f"{name}.{index}", layer, content) for index, layer in enumerate(head))
    return _complete_layer(name, head, content)


def _complete_layer(place: str, layer: Layer, content: FileContent) -> Layer:
    kind, arguments = split_layer(layer)
    if kind not in SIZES or arguments is not None:
        return layer
    weight = _find(f"{place}.weight", content)
    if weight is None:
        raise ConfigError(
            f"`head`: {kind} stands at {place!r}, and {content.path} has no weights of that name; check the order of "
            f"the layers, or give the arguments, as in {{{kind}: [512, 5]}}"
        )
    found = SIZES[kind](list(weight.shape))
    bias = {"bias": False} if kind in WITH_BIAS and _find(f"{place}.bias", content) is None else {}
    return {kind: {**found, **bias}}


def _find(name: str, content: FileContent) -> Tensor | None:
    """Return the tensor of that name, whatever prefix stands before it."""
    ending = re.compile(rf"(^|\.){re.escape(name)}$")
    return next((v for state in content.states for found, v in state.tensors.items() if ending.search(found)), None)
