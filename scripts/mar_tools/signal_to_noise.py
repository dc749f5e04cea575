"""The signal-to-noise ratio of outputs: how verification and calibration judge what rounding does to them."""

import torch
from torch import Tensor


def signal_to_noise_db(expected: Tensor, found: Tensor) -> float:
    """10 log10 of the variance of the expected values over the mean squared difference, at most 200."""
    noise = (expected - found).square().mean().clamp(min=1e-30)
    signal = (expected - expected.mean()).square().mean().clamp(min=1e-30)
    return float((10 * torch.log10(signal / noise)).clamp(max=200.0))
