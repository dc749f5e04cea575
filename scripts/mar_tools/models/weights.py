"""State dicts from files into networks; every key and shape must fit."""

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vision_serving.errors import ConfigError
from vision_serving.graphs.sources import load_state

RANDOM = "random"
PRETRAINED = "pretrained"
STATE_KEYS = ("model", "state_dict", "model_state_dict")
PARALLEL_PREFIX = "module."  # of torch.nn.DataParallel


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a state dict from a file into a network; every key and shape must fit."""
    state = read_state_dict(path)
    problem = describe_mismatch(network.state_dict(), state)
    if problem:
        raise ConfigError(f"{path} does not fit the model: {problem}")
    load_state(network, state)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a .safetensors or .pth file, also under the keys and prefixes that training scripts put around it."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such weights file")
    try:
        state: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{path}: it holds more than tensors, such as a whole model; save model.state_dict() instead"
        ) from error
    except Exception as error:  # a damaged file makes the unpickler raise anything
        raise ConfigError(f"{path}: damaged, or not a weights file ({type(error).__name__})") from error
    for key in STATE_KEYS:
        state = state.get(key, state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        found = f"a dict with {sorted(map(str, state))[:5]}" if isinstance(state, dict) else type(state).__name__
        raise ConfigError(f"{path}: expected a state dict (names to tensors), got {found}")
    return {name.removeprefix(PARALLEL_PREFIX): values for name, values in state.items()}


def describe_mismatch(expected: dict[str, Tensor], found: dict[str, Tensor]) -> str:
    """Return what does not fit between two state dicts, in a few words; empty when all does."""
    shapes = [
        f"{name} has shape {tuple(found[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    strays = {"missing": sorted(expected.keys() - found.keys()), "unexpected": sorted(found.keys() - expected.keys())}
    parts = shapes[:2] + [f"{len(keys)} {kind} keys, the first {keys[0]!r}" for kind, keys in strays.items() if keys]
    hint = "; `num_classes` goes under `model: arguments:`" if shapes else ""
    return "; ".join(parts) + hint
