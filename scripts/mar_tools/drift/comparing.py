"""How far the traffic is from the verification, and whether chance alone could make it so.

The Jensen-Shannon distance of two distributions is 0 where they are the same and 1 where they have nothing in common. A
population stability index of 0.25, from which many speak of a shift, is a distance of about 0.2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon

from mar_tools.distributions import NOTHING, PARTS, Histogram, name_bins
from mar_tools.drift.reference import Reference
from mar_tools.drift.samples import Samples

SHIFTED = 0.2
LEAST_IMAGES = 30  # on either side
DRAWS = 1000  # of pairs of samples, of which the hundredth largest distance is chance's
CHANCE = 0.99
TOO_FEW, ALIKE, SHIFT = "too few to say", "alike", "shifted"
# What else differs where pictures do; the first two are the model's, the last two the pictures' own.
TITLES = {"scores": "scores", "classes": "classes", "counts": "detections", "sizes": "longer side", "formats": "format"}

Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """One part of the distributions. distance: None where a side has no image.

    chance: the distance that one of 100 pairs of samples exceeds which are so large and come from one distribution.
    expected, found: the share of each bin.
    """

    part: str
    distance: float | None
    chance: float
    expected_images: int
    found_images: int
    expected: Mapping[str, float]
    found: Mapping[str, float]

    @property
    def verdict(self) -> str:
        """Return `shifted` where they differ by more than SHIFTED and than chance makes it, `alike` where they do not.

        `too few to say` where a difference could be chance, or one of SHIFTED could be hidden.
        """
        if self.distance is None or min(self.expected_images, self.found_images) < LEAST_IMAGES:
            return TOO_FEW
        if self.distance > max(SHIFTED, self.chance):
            return SHIFT
        return ALIKE if self.chance <= SHIFTED else TOO_FEW


def compare(reference: Reference, samples: Samples) -> list[Comparison]:
    """Compare each part that the archive has something to say of."""
    parts, found = reference.distributions.parts, samples.distributions.parts
    return [compare_part(part, parts[part], found.get(part, {})) for part in PARTS if part in parts]


def compare_part(part: str, expected: Histogram, found: Histogram) -> Comparison:
    """Compare two histograms of one part."""
    bins = order_bins(part, expected, found)
    verified, sampled = (np.array([side.get(name, 0.0) for name in bins]) for side in (expected, found))
    counts = round(float(verified.sum())), round(float(sampled.sum()))
    distance, chance = None, 1.0
    if 0 not in counts:
        distance = float(jensenshannon(verified, sampled, base=2))
        pooled = verified + sampled
        chance = distance_by_chance(pooled / pooled.sum(), *counts)
    return Comparison(part, distance, chance, *counts, expected=_share(bins, verified), found=_share(bins, sampled))


def distance_by_chance(shares: Shares, expected_images: int, found_images: int) -> float:
    """Return what one of 100 pairs of samples of one distribution exceeds. The same each time for the same shares."""
    generator = np.random.default_rng(0)
    draws = [generator.multinomial(count, shares, DRAWS).astype(float) for count in (expected_images, found_images)]
    return float(np.quantile(jensenshannon(draws[0], draws[1], base=2, axis=1), CHANCE))


def order_bins(part: str, expected: Histogram, found: Histogram) -> list[str]:
    """Return the bins that either side has, in order; of names without an order, the most frequent first."""
    known = expected.keys() | found.keys()
    if order := name_bins(part):
        return [name for name in order if name in known]
    totals = [sum(side.values()) or 1.0 for side in (expected, found)]
    most = {name: max(expected.get(name, 0.0) / totals[0], found.get(name, 0.0) / totals[1]) for name in known}
    return sorted(known, key=lambda name: (name == NOTHING, -most[name], name))


def _share(bins: Sequence[str], values: Shares) -> dict[str, float]:
    total = float(values.sum()) or 1.0
    return {name: float(value) / total for name, value in zip(bins, values, strict=True)}
