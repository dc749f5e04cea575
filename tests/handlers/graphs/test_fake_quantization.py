"""Layers that round as int8 does: folded, followed by training, and the same again from a state dict."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from vision_serving.graphs.fake_quantization import (
    FakeQuantizedConv2d,
    FakeQuantizer,
    fold_batch_norms,
    insert_fake_quantization,
)
from vision_serving.graphs.sources import NetworkSource, build_network, load_state


def spread_statistics(network: nn.Module) -> nn.Module:
    """Give batch norms statistics and weights of a trained network's kind."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for values, mean, std in (
                (module.running_mean, 0.0, 0.2),
                (module.weight, 1.0, 0.1),
                (module.bias, 0.0, 0.1),
            ):
                with torch.no_grad():
                    values.copy_(mean + std * torch.randn(values.shape, generator=generator))
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


@pytest.mark.parametrize(
    ("library", "name", "left"),
    [
        ("torchvision", "resnet18", 0),
        ("torchvision", "mobilenet_v3_small", 0),
        ("timm", "test_efficientnet.r160_in1k", 0),
        ("torchvision", "densenet121", 62),
    ],
    ids=[
        "blocks with shortcuts",
        "hard-swish and squeeze",
        "a norm that has its activation",
        "norms before convolutions",
    ],
)
@torch.no_grad()
def test_a_network_answers_the_same_with_its_batch_norms_inside_of_the_convolutions(
    library: str, name: str, left: int
) -> None:
    source = NetworkSource.model_validate({"source": library, "name": name})
    network = spread_statistics(build_network(source, Path()))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected = network(images)
    fold_batch_norms(network)
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) == left


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )


@pytest.mark.parametrize(("activations", "lowest"), [("affine", 0), ("symmetric", -128)])
def test_inputs_have_256_levels_and_zero_is_one_of_them(activations: str, lowest: int) -> None:
    rounding = FakeQuantizer(4, activations).train()  # type: ignore[arg-type]
    values = torch.linspace(-1.0, 3.0, 10_001)
    rounded = rounding.round_inputs(values)
    levels = set(rounded.tolist())
    rounding.eval()
    assert 150 < len(levels) <= 256
    assert float(rounding.round_inputs(torch.zeros(1))) == 0.0
    assert float((rounded - values).abs().max()) <= float(rounding.input_scale) * 0.51
    assert lowest <= int(rounding.input_zero_point) <= 255


def test_training_moves_the_ranges_and_eval_mode_does_not() -> None:
    network = small_network()
    insert_fake_quantization(network, "affine")
    network.train()(torch.rand(4, 3, 8, 8))
    before = copy.deepcopy(network.state_dict())
    network.eval()(100 * torch.rand(4, 3, 8, 8))
    assert all(torch.equal(values, before[name]) for name, values in network.state_dict().items())
    network.train()(100 * torch.rand(4, 3, 8, 8))
    assert float(network.state_dict()["0.rounding.input_range"][1]) > float(before["0.rounding.input_range"][1])


def test_gradients_reach_the_weights_through_the_rounding() -> None:
    network = small_network()
    insert_fake_quantization(network, "affine")
    network.train()(torch.rand(4, 3, 8, 8)).sum().backward()
    assert isinstance(network[0], FakeQuantizedConv2d)
    assert network[0].weight.grad is not None
    assert float(network[0].weight.grad.abs().sum()) > 0


@torch.no_grad()
def test_a_source_builds_the_network_that_its_weights_were_saved_from() -> None:
    source = NetworkSource.model_validate(
        {"source": "torchvision", "name": "mobilenet_v3_small", "fake_quantization": "affine"}
    )
    trained = build_network(source, Path()).train()
    trained(torch.rand(4, 3, 32, 32))
    again = build_network(source, Path())
    load_state(again, trained.state_dict())
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(again(images), trained.eval()(images))


def test_a_file_that_is_no_network_of_python_takes_no_fake_quantisation() -> None:
    with pytest.raises(ValueError, match="does not take 'fake_quantization'"):
        NetworkSource.model_validate({"source": "onnx", "file": "m.onnx", "fake_quantization": "affine"})
