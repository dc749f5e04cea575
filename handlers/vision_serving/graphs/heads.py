"""Other layers in the place of a part of a library's network: the head that a training gave it."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from vision_serving.errors import ConfigError, foreign_code

# A layer of torch.nn by its name alone, or with its arguments: `Dropout`, `{Linear: [512, 5]}`, `{Dropout: {p: 0.2}}`.
Layer = str | dict[str, Any]
Head = Layer | tuple[Layer, ...]


def replace_heads(network: nn.Module, heads: Mapping[str, Head]) -> None:
    """Put new layers, untrained, where the names say; several become an nn.Sequential.

    Raises ConfigError for names that the network lacks, and for layers that torch.nn lacks or cannot build.
    """
    for name, head in heads.items():
        try:
            network.get_submodule(name)
        except AttributeError as error:
            near = [child for child, _ in network.named_children()]
            raise ConfigError(f"`head`: the network has no {name!r}; it has {near}") from error
        layers = new_layers(head)
        parent, _, own = name.rpartition(".")
        setattr(network.get_submodule(parent), own, layers)


def new_layers(head: Head) -> nn.Module:
    """Return the layers of a head. Several are run one after the other."""
    return nn.Sequential(*map(_new_layer, head)) if isinstance(head, tuple) else _new_layer(head)


def split_layer(layer: Layer) -> tuple[str, Any]:
    """Return name and arguments; None where it is a name alone. Raises ConfigError for more than one name."""
    if isinstance(layer, str):
        return layer, None
    if len(layer) != 1:
        raise ConfigError(f"`head`: expected a layer and its arguments, as in {{Linear: [512, 5]}}, got {layer}")
    return next(iter(layer.items()))


def _new_layer(layer: Layer) -> nn.Module:
    name, arguments = split_layer(layer)
    kind = getattr(nn, name, None)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ConfigError(f"`head`: torch.nn has no layer {name!r}")
    named = arguments if isinstance(arguments, dict) else {}
    placed = arguments if isinstance(arguments, (list, tuple)) else [] if arguments is None or named else [arguments]
    with foreign_code(lambda error: ConfigError(f"`head`: {name} cannot be built with {arguments}: {error}")):
        made: nn.Module = kind(*placed, **named)
    return made
