"""Channels taken out of a network, by torch-pruning: those whose weights are least, over all layers that share them.

It follows which layers depend on a channel (DepGraph: Fang et al., 2023). A channel counts as much as the mean L2 norm
of its weights over its group, beside the mean of that layer.
"""

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vision_serving.errors import ConfigError, foreign_code
from vision_serving.graphs.shapes import HEAD_COUNTS

MULTIPLE = 8  # of channels that are left: what vector instructions take at once
ESTIMATED = 512  # pictures that batch norms are estimated on
MOMENTUM = 0.1  # of batch norms while training goes on, with which few steps are enough


def prune_channels(network: nn.Module, share: float, images: Tensor) -> float:
    """Take a share of the channels out of each group of layers, in place; return the share of parameters that is left.

    images: normalised (N, C, H, W). What gives the network's answers keeps all of its outputs, and so does what shapes
    alone could not rebuild, as an attention. Raises ConfigError where nothing can be taken out.
    """
    import torch_pruning

    before = count_parameters(network)
    network.eval()

    def explain(error: BaseException) -> ConfigError:
        return ConfigError(f"--prune: torch-pruning cannot follow the layers of this network: {error}")

    with foreign_code(explain), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parameters that are no layer's, as positions, which follow the others
        for parameter in network.parameters():  # along whose gradients torch-pruning follows a network
            parameter.requires_grad_(True)
        pruner = torch_pruning.pruner.MetaPruner(
            network,
            images,
            torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=share,
            pruning_ratio_dict=find_shares(network, share),
            ignored_layers=[*find_answering_layers(network, images), *find_fixed_layers(network)],
            round_to=MULTIPLE,
        )
        pruner.step()
        network(images)
    left = count_parameters(network) / before
    if left == 1:
        raise ConfigError(f"--prune {share:g}: no layer of this network has channels that can be taken out")
    return left


def find_shares(network: nn.Module, share: float) -> dict[nn.Module, float]:
    """Return the share that goes of each layer, of which MULTIPLE channels are left at least.

    torch-pruning leaves a layer whole of which nothing would be left: a large share took less away than a small one.
    """
    layers = [module for module in network.modules() if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear))]
    left = MULTIPLE + 0.5  # of which it takes the whole part
    return {layer: min(share, max(0.0, 1 - left / len(layer.weight))) for layer in layers}


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def find_answering_layers(network: nn.Module, images: Tensor) -> list[nn.Module]:
    """Return the layers after which no other layer comes on the way to the answers."""
    import torch_pruning

    graph = torch_pruning.DependencyGraph().build_dependency(network, example_inputs=images)
    weighted = [
        node for node in graph.module2node.values() if isinstance(node.module, (nn.modules.conv._ConvNd, nn.Linear))
    ]
    return [node.module for node in weighted if not _reaches(node, {id(other) for other in weighted})]


def _reaches(node: object, others: set[int]) -> bool:
    """Return whether another of them lies behind a node."""
    seen: set[int] = set()
    waiting = list(node.outputs)  # type: ignore[attr-defined]
    while waiting:
        each = waiting.pop()
        if id(each) in others:
            return True
        if id(each) not in seen:
            seen.add(id(each))
            waiting += each.outputs
    return False


def find_fixed_layers(network: nn.Module) -> list[nn.Module]:
    """Return what must keep its channels: attentions, whose heads shapes do not tell, and norms over groups."""
    owners = [module for module in network.modules() if any(hasattr(module, count) for count in HEAD_COUNTS)]
    groups = [module for module in network.modules() if isinstance(module, nn.GroupNorm) and module.num_groups > 1]
    return [*(layer for owner in owners for layer in owner.modules()), *groups]


@torch.no_grad()
def estimate_batch_norms(graph: nn.Module, batches: Iterable[Tensor]) -> None:
    """Measure the statistics of all batch norms anew, as plain means over the batches (momentum None).

    batches: uint8 (N, H, W, 3). Those that were measured with all channels are wrong for fewer.
    """
    norms = [module for module in graph.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for pixels in batches:
        graph(pixels)
    for norm in norms:
        norm.momentum = MOMENTUM
        norm.eval()
