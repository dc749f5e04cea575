"""What a TorchScript or ONNX file says of its images: looked at before anything is made of it."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mar_tools.models.example_pixels import is_fixed_size, load_pixels
from vision_serving.config import PreprocessingConfig
from vision_serving.errors import ConfigError
from vision_serving.graphs.fixed_batches import FixedBatchNetwork
from vision_serving.graphs.inputs import make_size
from vision_serving.graphs.pixels import Normalize
from vision_serving.graphs.sources import NetworkSource

SOME_IMAGES = 2
TRIED_BATCHES = (1, 2, 4, 8, 16, 32)
TOLERANCE = 1e-3  # of the largest value: images of a batch that do not mix differ by rounding


def fit_file(
    network: nn.Module, source: NetworkSource, preprocessing: PreprocessingConfig
) -> tuple[nn.Module, NetworkSource, PreprocessingConfig]:
    """Return what the file makes of the recipe. Raises ConfigError where it takes other images."""
    if source.source == "onnx":
        fitted = fit_onnx(network, preprocessing)
        check_each_is_answered(network, source, fitted)
        return network, source, fitted
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


def check_each_is_answered(network: Any, source: NetworkSource, preprocessing: PreprocessingConfig) -> None:
    """Raises ConfigError for an OnnxNetwork of several images that answers one of them."""
    count = network.batch or SOME_IMAGES
    images = Normalize(preprocessing)(load_pixels(SOME_IMAGES, preprocessing))[torch.arange(count) % SOME_IMAGES]
    sizes = [make_size(kind, images, (images.shape[2], images.shape[3])) for kind in source.inputs.values()]
    answers = _try(network, images, *sizes)
    if count > 1 and _is_one_answer(answers):
        raise ConfigError(_tell_one_answer(network.batch, count, answers))


def find_fixed_batch(network: nn.Module, preprocessing: PreprocessingConfig) -> int | None:
    """Return how many images a network takes at a time; None where it takes any number, or none at all.

    Raises ConfigError for one of several images that answers one of them.
    """
    images = Normalize(preprocessing)(load_pixels(3, preprocessing))
    together, alone = _try_all(network, images), [_try_all(network, image) for image in torch.split(images, 1)]
    if together is not None and (None in alone or _is_close(together, torch.cat(alone))):  # type: ignore[arg-type]
        return None
    for size in TRIED_BATCHES:
        answers = _try(network, images[torch.arange(size) % len(images)])
        if answers and len(answers[0]) == size:
            return size
        if _is_one_answer(answers):
            raise ConfigError(_tell_one_answer(size, size, answers))
    return None


def _is_one_answer(answers: Sequence[Tensor]) -> bool:
    return bool(answers) and all(len(values) == 1 for values in answers)


def _tell_one_answer(batch: int | None, count: int, answers: Sequence[Tensor]) -> str:
    shapes = ", ".join(str(tuple(values.shape)) for values in answers)
    return (
        f"the file takes {batch or 'any number of'} images at a time, and answers one of them: for {count} images it "
        f"gives {shapes}. Expected as many answers as images, first. Export it for one image, or without the step that "
        "picks one answer"
    )


def _try_all(network: nn.Module, images: Tensor) -> Tensor | None:
    """Return the first output, N first; None where the network fails, or gives another number."""
    answers = _try(network, images)
    return answers[0] if answers and len(answers[0]) == len(images) else None


def _try(network: nn.Module, *inputs: Tensor) -> list[Tensor]:
    """Return all outputs but single numbers; none where the network fails."""
    try:
        with torch.inference_mode():
            outputs = network(*inputs)
    except Exception:  # the network may be of anybody
        return []
    return [values.float() for values in _flatten(outputs) if values.dim()]


def _flatten(outputs: Any) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, (dict, list, tuple)):
        for values in outputs.values() if isinstance(outputs, dict) else outputs:
            yield from _flatten(values)


def _is_close(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and bool(
        (first - second).abs().max() <= TOLERANCE * second.abs().max().clamp(min=TOLERANCE)
    )
