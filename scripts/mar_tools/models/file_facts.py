"""What a TorchScript or ONNX file says of its images: looked at before anything is made of it."""

from typing import Any

import torch
from torch import Tensor, nn

from mar_tools.models.example_pixels import is_fixed_size, load_pixels
from vision_serving.config import PreprocessingConfig
from vision_serving.errors import ConfigError
from vision_serving.graphs.fixed_batches import FixedBatchNetwork
from vision_serving.graphs.pixels import Normalize
from vision_serving.graphs.sources import NetworkSource

TRIED_BATCHES = (1, 2, 4, 8, 16, 32)
TOLERANCE = 1e-3  # of the largest value: images of a batch that do not mix differ by rounding


def fit_file(
    network: nn.Module, source: NetworkSource, preprocessing: PreprocessingConfig
) -> tuple[nn.Module, NetworkSource, PreprocessingConfig]:
    """Return what the file makes of the recipe. Raises ConfigError where it takes other images."""
    if source.source == "onnx":
        return network, source, fit_onnx(network, preprocessing)
    size = find_fixed_batch(network, preprocessing) if source.source == "torchscript" else None
    if size is None:
        return network, source, preprocessing
    return FixedBatchNetwork(network, size).eval(), source.model_copy(update={"fixed_batch": size}), preprocessing


def fit_onnx(network: Any, preprocessing: PreprocessingConfig) -> PreprocessingConfig:
    """Check channels and size against an OnnxNetwork's; one of uint8 normalises pixels itself."""
    channels, *wanted = network.input_chw
    if channels not in (preprocessing.channels, None):
        raise ConfigError(f"the model takes {channels} channels, `preprocessing` makes {preprocessing.channels}")
    made = load_pixels(1, preprocessing).shape[1:3] if is_fixed_size(preprocessing) else ("any", "any")
    if any(side is not None and side != size for side, size in zip(wanted, made, strict=True)):
        raise ConfigError(
            f"the model takes images of {wanted[0]} x {wanted[1]} (height x width), `preprocessing` makes "
            f"{made[0]} x {made[1]}"
        )
    if not network.takes_levels:
        return preprocessing
    neutral = {"mean": (0.0,) * preprocessing.channels, "std": (1.0,) * preprocessing.channels}
    stated = {name: getattr(preprocessing, name) for name in neutral if name in preprocessing.model_fields_set}
    if any(values != neutral[name] for name, values in stated.items()):
        raise ConfigError(
            "the model takes pixels as they are (uint8) and normalises them itself: leave out `mean` and `std`"
        )
    return preprocessing.model_copy(update=neutral)


def find_fixed_batch(network: nn.Module, preprocessing: PreprocessingConfig) -> int | None:
    """Return how many images a network takes at a time; None where it takes any number, or none at all."""
    images = Normalize(preprocessing)(load_pixels(3, preprocessing))
    together, alone = _try(network, images), [_try(network, image) for image in torch.split(images, 1)]
    if together is not None and (None in alone or _is_close(together, torch.cat(alone))):  # type: ignore[arg-type]
        return None
    for size in TRIED_BATCHES:
        if _try(network, images[torch.arange(size) % len(images)]) is not None:
            return size
    return None


def _try(network: nn.Module, images: Tensor) -> Tensor | None:
    """Return the first output, N first; None where the network fails, or gives another number."""
    try:
        with torch.inference_mode():
            outputs = network(images)
    except Exception:  # the network may be of anybody
        return None
    while not isinstance(outputs, Tensor):
        values = list(outputs.values() if isinstance(outputs, dict) else outputs)
        if not values:
            return None
        outputs = values[0]
    return outputs.float() if outputs.dim() and len(outputs) == len(images) else None


def _is_close(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and bool(
        (first - second).abs().max() <= TOLERANCE * second.abs().max().clamp(min=TOLERANCE)
    )
