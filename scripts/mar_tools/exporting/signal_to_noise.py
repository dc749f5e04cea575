"""The signal-to-noise ratio of outputs: how verification and calibration judge what rounding does to them."""

import torch
from torch import Tensor

PROFILE_RANKS = 4096


def signal_to_noise_db(expected: Tensor, found: Tensor) -> float:
    """Return 10 log10 of the variance of the expected values over the mean squared difference, at most 200."""
    noise = (expected - found).square().mean().clamp(min=1e-30)
    signal = (expected - expected.mean()).square().mean().clamp(min=1e-30)
    return float((10 * torch.log10(signal / noise)).clamp(max=200.0))


def score_profile(scores: Tensor) -> Tensor:
    """Return all scores of an image, sorted, at evenly spaced ranks: (PROFILE_RANKS,), however many there are.

    Without zeros, which stand where a graph suppressed a candidate: one more or less of those is no noise of scores.
    """
    ordered = scores[scores != 0].float().sort().values
    if len(ordered) == 0:
        return torch.zeros(PROFILE_RANKS)
    return ordered[torch.linspace(0, len(ordered) - 1, PROFILE_RANKS, dtype=torch.float64).round().long()]
