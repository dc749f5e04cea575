"""A training with the values of int8: the weights learn to do without what rounding takes."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mar_tools.training.settings import Settings
from vision_serving.errors import ConfigError
from vision_serving.graphs.fake_quantization import (
    Activations,
    FakeQuantizer,
    fold_batch_norms,
    insert_fake_quantization,
)

GENTLER = 10.0  # times smaller than that of other training is the learning rate
FOLDED_DIFFERENCE = 1e-3  # of the answers, beside their largest, that folding batch norms may make


@torch.no_grad()
def quantise_network(network: nn.Module, activations: Activations, images: Tensor) -> int:
    """Let the layers round, in place; return how many do. images: normalised (N, C, H, W).

    Raises ConfigError where the batch norms are not what follows the convolutions before them.
    """
    network.eval()
    expected = first_answer(network(images))
    fold_batch_norms(network)
    found = first_answer(network(images))
    difference = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-8))
    if difference > FOLDED_DIFFERENCE:
        raise ConfigError(
            f"--qat: with batch norms inside of its convolutions the network answers otherwise (by {difference:.3g} "
            "of its largest answer): their order in the code is not that of their use"
        )
    insert_fake_quantization(network, activations)
    rounding = find_quantizers(network)
    if not rounding:
        raise ConfigError("--qat: this network has no convolutions or linear layers of PyTorch's own classes")
    return len(rounding)


def first_answer(answers: object) -> Tensor:
    """Return a network's tensor, the first one of several."""
    while not isinstance(answers, Tensor):
        answers = next(iter(answers.values() if isinstance(answers, dict) else answers))  # type: ignore
    return answers


def find_quantizers(network: nn.Module) -> list[FakeQuantizer]:
    return [module for module in network.modules() if isinstance(module, FakeQuantizer)]


@torch.no_grad()
def measure_ranges(graph: nn.Module, batches: Iterable[Tensor]) -> None:
    """Let the ranges of the inputs follow some batches, uint8 (N, H, W, 3), before anything is trained."""
    rounding = find_quantizers(graph)
    for each in rounding:
        each.train()
    for pixels in batches:
        graph(pixels)
    for each in rounding:
        each.eval()


def gentle(settings: Settings) -> Settings:
    """Return settings for a network that is trained already. An average would mix scales of different moments."""
    return settings.model_copy(
        update={"learning_rate": settings.learning_rate / GENTLER, "average": False, "label_smoothing": 0.0}
    )
