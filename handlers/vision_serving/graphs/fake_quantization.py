"""Layers that compute with the values that int8 has, in floats: what quantisation-aware training trains and exports.

Inputs of a layer have 256 levels of one scale, weights those of a scale a channel. In training the scales follow the
values; in eval mode they are what the weights file says. Batch norms become part of the convolutions before them.
"""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Activations = Literal["affine", "symmetric"]
FOLLOWING = 0.02  # share of a batch's range in the range of the inputs
LEAST_SCALE = 1e-8
WEIGHT_LEVELS = (-128, 127)
LEVELS: dict[Activations, tuple[int, int]] = {"affine": (0, 255), "symmetric": (-128, 127)}


class FakeQuantizer(nn.Module):
    """Rounds the inputs and weights of the layer that it is part of. symmetric: zero is level zero of the inputs."""

    input_range: Tensor
    input_scale: Tensor
    input_zero_point: Tensor
    weight_scale: Tensor
    weight_zero_point: Tensor

    def __init__(self, channels: int, activations: Activations) -> None:
        super().__init__()
        self.activations: Activations = activations
        self.is_followed = True  # whether training still moves the range of the inputs
        self.register_buffer("input_range", torch.zeros(2))  # lowest and highest value; zeros before the first batch
        self.register_buffer("input_scale", torch.ones(1))
        self.register_buffer("input_zero_point", torch.zeros(1, dtype=torch.int32))
        self.register_buffer("weight_scale", torch.ones(channels))
        self.register_buffer("weight_zero_point", torch.zeros(channels, dtype=torch.int32))

    def round_inputs(self, values: Tensor) -> Tensor:
        if self.training and self.is_followed:
            self._follow(values.detach())
        return torch.fake_quantize_per_tensor_affine(
            values, self.input_scale, self.input_zero_point, *LEVELS[self.activations]
        )

    def round_weights(self, weights: Tensor) -> Tensor:
        if self.training:
            largest = weights.detach().abs().flatten(1).amax(dim=1)
            self.weight_scale.copy_((largest / WEIGHT_LEVELS[1]).clamp(min=LEAST_SCALE))
        return torch.fake_quantize_per_channel_affine(
            weights, self.weight_scale, self.weight_zero_point, 0, *WEIGHT_LEVELS
        )

    def _follow(self, values: Tensor) -> None:
        """Move the range towards that of a batch; zero is always in it, as padding needs it exactly."""
        found = torch.stack((values.amin().clamp(max=0), values.amax().clamp(min=0))).float()
        is_new = not bool(self.input_range.any())
        self.input_range.copy_(found if is_new else self.input_range.lerp(found, FOLLOWING))
        low, high = self.input_range
        lowest, highest = LEVELS[self.activations]
        if self.activations == "symmetric":
            self.input_scale.fill_((self.input_range.abs().max() / highest).clamp(min=LEAST_SCALE))
            return
        self.input_scale.fill_(((high - low) / (highest - lowest)).clamp(min=LEAST_SCALE))
        self.input_zero_point.fill_((-low / self.input_scale[0]).round().clamp(lowest, highest).int())


class FakeQuantizedConv2d(nn.Conv2d):
    """A convolution of rounded inputs and weights."""

    rounding: FakeQuantizer

    def forward(self, images: Tensor) -> Tensor:
        return self._conv_forward(
            self.rounding.round_inputs(images), self.rounding.round_weights(self.weight), self.bias
        )


class FakeQuantizedLinear(nn.Linear):
    """A product of rounded inputs and weights."""

    rounding: FakeQuantizer

    def forward(self, values: Tensor) -> Tensor:
        return functional.linear(
            self.rounding.round_inputs(values), self.rounding.round_weights(self.weight), self.bias
        )


NORMS = nn.BatchNorm2d
QUANTIZED: dict[type[nn.Module], type[nn.Module]] = {nn.Conv2d: FakeQuantizedConv2d, nn.Linear: FakeQuantizedLinear}


def insert_fake_quantization(network: nn.Module, activations: Activations) -> None:
    """Let convolutions and linear layers round. Layers of other classes, as parts of an attention, stay as they are."""
    fold_batch_norms(network)
    for module in list(network.modules()):
        quantized = QUANTIZED.get(type(module))
        if quantized is not None:
            module.__class__ = quantized
            module.rounding = FakeQuantizer(len(module.weight), activations).train(module.training)


def fold_batch_norms(network: nn.Module) -> None:
    """Make each batch norm part of the convolution that stands right before it in the code, with its statistics."""
    layers = dict(network.named_modules())
    leaves = [name for name, layer in layers.items() if not list(layer.children()) or isinstance(layer, NORMS)]
    # What an activation or dropout inside of a batch norm is called begins with the name of that norm.
    leaves = [name for name in leaves if not isinstance(layers[name.rpartition(".")[0]], NORMS)]
    for before, after in pairwise(leaves):
        conv, norm = layers[before], layers[after]
        if type(conv) is nn.Conv2d and isinstance(norm, NORMS) and conv.out_channels == norm.num_features:
            _fold(conv, norm)
            network.set_submodule(after, getattr(norm, "act", nn.Identity()))


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    with torch.no_grad():
        factor = torch.rsqrt(norm.running_var + norm.eps)
        if norm.weight is not None:
            factor = factor * norm.weight
        shift = -norm.running_mean * factor
        if norm.bias is not None:
            shift = shift + norm.bias
        if conv.bias is not None:
            shift = shift + conv.bias * factor
        conv.weight.mul_(factor.view(-1, 1, 1, 1))
        conv.bias = nn.Parameter(shift.clone())
