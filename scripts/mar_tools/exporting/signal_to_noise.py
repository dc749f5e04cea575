"""The signal-to-noise ratio of outputs: how verification and calibration judge what rounding does to them."""

from collections.abc import Sequence

import torch
from torch import Tensor

PROFILE_RANKS = 4096
LEAST_SCORE = 0.05  # no candidate below it is ever shown: a dense detector has thousands of those, all nearly 0
MOST_DB = 200.0
ROUNDING = 1e-6  # of float32, in parts of the largest value


def signal_to_noise_db(expected: Tensor, found: Tensor) -> float:
    """Return 10 log10 of the variance of the expected values over the mean squared difference, at most 200.

    Values that do not vary carry no signal, but those that equal them are equal.
    """
    noise = (expected - found).square().mean()
    signal = (expected - expected.mean()).square().mean()
    rounding = (ROUNDING * expected.abs().max()).square()
    return MOST_DB if signal <= rounding and noise <= rounding else _decibels(signal, noise)


def score_profile(scores: Tensor) -> Tensor:
    """Return the best scores of an image, best first: (PROFILE_RANKS,), filled up with zeros."""
    best = scores.float().flatten().topk(min(PROFILE_RANKS, scores.numel())).values
    return torch.cat((best, best.new_zeros(PROFILE_RANKS - len(best))))


def scores_snr_db(expected: Sequence[Tensor], found: Sequence[Tensor], mean_score: float) -> list[float]:
    """Return the ratio of each image's profile where it has candidates above LEAST_SCORE; of all where none has any.

    Only those candidates count, of both sides. The signal is how far those of all images stand out from `mean_score`,
    that of every candidate: a single weak one is no reason to reject an export.
    """
    counts = [max(int((side > LEAST_SCORE).sum()) for side in pair) for pair in zip(expected, found, strict=True)]
    if not any(counts):
        counts = [max(1, *(int((side != 0).sum()) for side in pair)) for pair in zip(expected, found, strict=True)]
    pairs = [(left[:count], right[:count]) for left, right, count in zip(expected, found, counts, strict=True) if count]
    signal = (torch.cat([left for left, _ in pairs]) - mean_score).square().mean()
    equal = all(torch.equal(left, right) for left, right in pairs)
    return [MOST_DB if equal else _decibels(signal, (left - right).square().mean()) for left, right in pairs]


def _decibels(signal: Tensor, noise: Tensor) -> float:
    return float((10 * torch.log10(signal.clamp(min=1e-30) / noise.clamp(min=1e-30))).clamp(max=MOST_DB))
