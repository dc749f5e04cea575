"""State dicts from files into networks; every name and shape must fit."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mar_tools.models.file_kinds import WEIGHTS
from mar_tools.models.heads import complete_heads
from mar_tools.models.misfits import describe_misfit
from mar_tools.models.recipes import Recipe
from mar_tools.models.traces import explain_foreign
from mar_tools.models.weight_files import (
    AVERAGED,
    AVERAGED_COUNT,
    NOT_WEIGHTS,
    FileContent,
    FoundState,
    look_into,
)
from vision_serving.errors import ConfigError
from vision_serving.graphs.shapes import take_shapes
from vision_serving.graphs.sources import NetworkSource, build_network, load_state

RANDOM = "random"
PRETRAINED = "pretrained"
PROGRAMS = {
    "torchscript": "a TorchScript program; say `source: torchscript` and `file:`",
    "onnx": "an ONNX model; say `source: onnx` and `file:`",
    "torch.export": "a program of torch.export (.pt2), which no source takes; export the model to ONNX",
    "mar": "an archive of TorchServe; the weights are a file inside it (unzip it)",
}
COUNTED = re.compile(r"(^|\.)num_batches_tracked$")  # which answers do not depend on
PART = 0.5  # of a network's names that a prefix must bring to be spoken of


@dataclass(frozen=True)
class Part:
    """Weights in a file that may be those of a network. name: what `weights_key` calls them.

    tensors: under the network's own names. problem: what does not fit; empty where all does. left: names of weights
    beside them, which the network would do without.
    """

    name: str
    tensors: Mapping[str, Tensor]
    problem: str
    left: Sequence[str]
    is_averaged: bool

    def describe(self) -> str:
        return f"{self.name!r}{' (an average over training)' if self.is_averaged else ''}"


def build_with_weights(recipe: Recipe) -> tuple[nn.Module, NetworkSource]:
    """Return the network with the weights of the recipe's file, untrained without one, and what rebuilds it."""
    source, file = recipe.network_source(), recipe.weights_file
    if file is None:
        if source.shapes is not None:
            raise ConfigError("`shapes: weights` needs a file of weights")
        if source.fake_quantization is not None:
            raise ConfigError("`fake_quantization` needs a file of weights, which has the scales")
        return build_network(source, recipe.folder), source
    content = look_into(file)
    check_holds_weights(content)
    source = source.model_copy(update={"head": complete_heads(source.head, content)})
    network = build_network(source, recipe.folder)
    load_weights(network, content, recipe.model.weights_key, source.shapes)
    return network, source


def check_own_shape(source: NetworkSource, weights: str) -> None:
    """Raises ConfigError for published weights of a network that the recipe changes."""
    for key in ("head", "shapes", "fake_quantization"):
        if getattr(source, key):
            raise ConfigError(f"`{key}` changes the network, so it needs a file of weights; got weights {weights!r}")


def load_weights(network: nn.Module, content: FileContent, key: str | None = None, shapes: str | None = None) -> None:
    """Load a state dict into a network.

    key: which of several that fit. shapes: `weights` where the network takes its shapes from them.
    """
    tensors = choose_weights(network, content, key, by_name=shapes is not None)
    if shapes is not None:
        take_shapes(network, tensors)
    load_state(network, tensors)


def read_state_dict(path: Path, key: str | None) -> dict[str, Tensor]:
    """Return the state dict of a file for a loader that knows older names. Raises ConfigError for several."""
    content = look_into(path)
    check_holds_weights(content)
    states = [state for state in content.states if key in (None, state.key)]
    if len(states) != 1:
        raise ConfigError(
            f"{path}: it has weights under {[state.key for state in content.states]}; say which are meant by "
            "`weights_key` under `model:`"
        )
    return {name.removeprefix(states[0].prefix): values for name, values in states[0].tensors.items()}


def choose_weights(network: nn.Module, content: FileContent, key: str | None, by_name: bool) -> dict[str, Tensor]:
    """Return the state dict of a file that fits the network. Raises ConfigError.

    by_name: shapes may differ.
    """
    check_holds_weights(content)
    parts = [part for state in content.states for part in list_parts(network, state, by_name)]
    part = choose_part(parts, content, key)
    if part.left and key is None:
        names = f"{len(part.left)} other weights, the first {part.left[0]!r}"
        raise ConfigError(
            f"{content.path}: the network fits {part.name!r}, but the file has {names}; where they are no part of the "
            f"network, say `weights_key: {part.name}` under `model:`"
        )
    broken = [
        name for name, values in part.tensors.items() if values.is_floating_point() and values.float().isnan().any()
    ]
    if broken:
        raise ConfigError(f"{content.path}: {broken[0]!r} holds NaN: the training broke; take an earlier checkpoint")
    own = network.state_dict()
    counts = {name: values for name, values in own.items() if COUNTED.search(name)}
    return {**counts, **{name: values for name, values in part.tensors.items() if name in own}}


def check_holds_weights(content: FileContent) -> None:
    """Raises ConfigError for a file without a state dict."""
    if content.kind not in WEIGHTS:
        raise ConfigError(f"{content.path}: {PROGRAMS[content.kind]}")
    if not content.states:
        arrays = any(name.endswith("multiarray._reconstruct") for name in content.names)
        what = "it has arrays of NumPy; save tensors (torch.from_numpy)" if arrays else explain_foreign(content.names)
        if content.of_training:
            what = (
                f"it holds what a training goes on with ({', '.join(content.of_training[:3])}) and no network; "
                "take the file that model.state_dict() was saved in"
            )
        found = f"it has {sorted(content.beside)[:5]}" if content.beside else "it has no tensors with names"
        raise ConfigError(f"{content.path}: {what or f'expected a state dict (names to tensors), but {found}'}")


def list_parts(network: nn.Module, state: FoundState, by_name: bool) -> list[Part]:
    """Return what may be the network's weights in a state dict: under each prefix that brings most of its names."""
    expected = network.state_dict()
    brought = Counter(
        prefix for name in state.tensors for prefix, rest in _splits(name) if rest in expected or not expected
    )
    prefixes = [prefix for prefix, count in brought.items() if count >= PART * len(expected)]
    return [_new_part(network, state, prefix, by_name) for prefix in prefixes or [state.prefix]]


def _splits(name: str) -> list[tuple[str, str]]:
    """Return ("", "a.b.c"), ("a.", "b.c") and ("a.b.", "c")."""
    words = name.split(".")
    return [("".join(f"{word}." for word in words[:cut]), ".".join(words[cut:])) for cut in range(len(words))]


def _new_part(network: nn.Module, state: FoundState, prefix: str, by_name: bool) -> Part:
    expected, computed = network.state_dict(), dict(network.named_buffers())
    below = {name[len(prefix) :]: values for name, values in state.tensors.items() if name.startswith(prefix)}
    tensors = {
        name: values
        for name, values in below.items()
        # Buffers that the network computes itself were saved by older releases of its library.
        if name in expected
        or not (_is_beside(name, values) or COUNTED.search(name) or _are_same(values, computed.get(name)))
    }
    filled = {name: values for name, values in expected.items() if COUNTED.search(name)}
    name = ".".join(filter(None, (state.key, prefix.rstrip("."))))
    others = {name: values for name, values in state.tensors.items() if not name.startswith(prefix)}
    return Part(
        name=name or "(the file itself)",
        tensors=tensors,
        problem=describe_misfit(expected, {**filled, **tensors}, by_name),
        left=[name for name, values in others.items() if not _is_beside(name, values)],
        is_averaged=state.is_averaged or bool(AVERAGED.search(name)),
    )


def _are_same(values: Tensor, others: Tensor | None) -> bool:
    return others is not None and values.shape == others.shape and torch.allclose(values.float(), others.float())


def _is_beside(name: str, values: Tensor) -> bool:
    """Return whether it belongs to a training and not to a network: a loss, a metric, a counter."""
    counter = values.numel() == 1 and not values.is_floating_point() and "." not in name
    return name == AVERAGED_COUNT or counter or bool(NOT_WEIGHTS.search(name.partition(".")[0]))


def choose_part(parts: Sequence[Part], content: FileContent, key: str | None) -> Part:
    """Return the one that is meant. Raises ConfigError where several may be, and where none fits."""
    if key is not None:
        named = [part for part in parts if part.name == key]
        named = named or [part for part in parts if part.name.startswith(f"{key}.")]
        if not named:
            raise ConfigError(
                f"{content.path}: no weights under `weights_key: {key}`; it has {[part.name for part in parts]}"
            )
        parts = named
    fitting = [part for part in parts if not part.problem]
    if not fitting:
        best = max(parts, key=lambda part: (not part.is_averaged, -len(part.problem)))
        raise ConfigError(f"{content.path} does not fit the model: {best.problem}")
    fitted = {part.name.partition(".")[0] for part in fitting}
    rivals = [
        part
        for part in parts
        if part.is_averaged and part.problem and part.name.partition(".")[0] not in fitted
        if len(part.tensors) > len(fitting[0].tensors) / 3  # the parameters alone are half of a convolutional network
    ]
    choices = [fitting[0], *(part for part in fitting[1:] if not _are_equal(part, fitting[0])), *rivals]
    if len(choices) > 1:
        names = " and ".join(part.describe() for part in choices)
        raise ConfigError(
            f"{content.path}: it has weights under {names}; say which are meant by `weights_key` under `model:`"
        )
    return fitting[0]


def _are_equal(part: Part, other: Part) -> bool:
    return part.tensors.keys() == other.tensors.keys() and all(
        torch.equal(values, other.tensors[name]) for name, values in part.tensors.items()
    )
