"""Channels that are taken out, and what must keep its own."""

from pathlib import Path

import pytest
import torch
from torch import nn

from mar_tools.compressing.pruning import count_parameters, estimate_batch_norms, find_answering_layers, prune_channels
from vision_serving.errors import ConfigError
from vision_serving.graphs.shapes import take_shapes
from vision_serving.graphs.sources import NetworkSource, build_network, load_state


def new_network(library: str, name: str) -> tuple[NetworkSource, nn.Module]:
    torch.manual_seed(0)
    source = NetworkSource.model_validate({"source": library, "name": name, "arguments": {"num_classes": 5}})
    return source, build_network(source, Path())


@pytest.mark.parametrize(
    ("library", "name", "size", "least", "most"),
    [
        ("torchvision", "mobilenet_v3_small", 64, 0.1, 0.5),
        ("torchvision", "resnet18", 64, 0.2, 0.3),
        ("timm", "test_efficientnet.r160_in1k", 64, 0.2, 0.8),
        ("timm", "test_vit.r160_in1k", 160, 0.5, 0.95),
    ],
)
@torch.no_grad()
def test_a_pruned_network_is_built_again_from_the_shapes_of_its_weights(
    library: str, name: str, size: int, least: float, most: float
) -> None:
    source, network = new_network(library, name)
    images = torch.randn(2, 3, size, size)
    left = prune_channels(network, 0.5, images)
    assert least < left < most
    again = build_network(source, Path())
    take_shapes(again, network.state_dict())
    load_state(again, network.state_dict())
    expected = network.eval()(images)
    assert expected.shape == (2, 5)
    torch.testing.assert_close(again(images), expected)


def test_the_layers_that_give_the_answers_are_found_behind_all_others() -> None:
    _, network = new_network("torchvision", "mobilenet_v3_small")
    assert find_answering_layers(network, torch.zeros(2, 3, 64, 64)) == [network.classifier[3]]  # type: ignore[index]


def test_a_network_of_one_layer_has_nothing_to_take_out() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    with pytest.raises(ConfigError, match="no layer of this network has channels that can be taken out"):
        prune_channels(network, 0.5, torch.zeros(2, 3, 2, 2))
    assert count_parameters(network) == 26


def test_batch_norms_get_the_plain_means_of_all_batches() -> None:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3, momentum=0.01)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            normed: torch.Tensor = self.norm(pixels.permute(0, 3, 1, 2).float())
            return normed

    graph = Graph().eval()
    batches = [torch.randint(0, 256, (8, 4, 4, 3), dtype=torch.uint8) for _ in range(3)]
    estimate_batch_norms(graph, batches)
    means = torch.stack([batch.float().mean(dim=(0, 1, 2)) for batch in batches]).mean(dim=0)
    torch.testing.assert_close(graph.norm.running_mean, means)
    assert not graph.norm.training
    assert graph.norm.momentum == 0.1


def test_a_larger_share_never_leaves_more() -> None:
    left = []
    for share in (0.5, 0.8, 0.95, 0.99):
        _, network = new_network("timm", "test_resnet.r160_in1k")
        left.append(prune_channels(network, share, torch.randn(2, 3, 64, 64)))
        widths = [layer.out_channels for layer in network.modules() if isinstance(layer, nn.Conv2d)]
        assert min(widths) >= 8
    assert left == sorted(left, reverse=True)
    assert left[-1] < 0.1
