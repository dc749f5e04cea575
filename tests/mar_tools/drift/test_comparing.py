"""When a difference is a shift, and when it may be chance."""

import numpy as np
import pytest

from mar_tools.distributions import NOTHING, Histogram
from mar_tools.drift.comparing import ALIKE, CHANCE, SHIFT, SHIFTED, TOO_FEW, compare_part, order_bins

BINS = ["0.4-0.6", "0.6-0.8", "0.8-0.9", "0.99-1"]
USUAL = [0.05, 0.15, 0.3, 0.5]


def draw(shares: list[float], images: int, seed: int) -> Histogram:
    counts = np.random.default_rng(seed).multinomial(images, shares)
    return dict(zip(BINS, counts.astype(float), strict=True))


@pytest.mark.parametrize(
    ("found", "distance"), [({"0.99-1": 50.0}, 0.0), ({"0.99-1": 500.0}, 0.0), ({"0-0.2": 50.0}, 1.0)]
)
def test_the_distance_is_0_for_the_same_and_1_for_nothing_in_common(found: Histogram, distance: float) -> None:
    assert compare_part("scores", {"0.99-1": 100.0}, found).distance == pytest.approx(distance)


def test_a_distance_of_the_bound_is_a_stability_index_of_about_a_quarter() -> None:
    expected, found = np.array([0.1] * 10), np.array([0.045, 0.06, 0.08, 0.1, 0.1, 0.1, 0.1, 0.11, 0.125, 0.18])
    index = float(((found - expected) * np.log(found / expected)).sum())
    sides = [dict(zip(map(str, range(10)), side * 1e5, strict=True)) for side in (expected, found)]
    distance = compare_part("classes", *sides).distance
    assert distance is not None
    # For small differences the index is eight times the squared distance, in nats.
    assert index == pytest.approx(8 * distance**2 * np.log(2), rel=0.1)
    assert 8 * SHIFTED**2 * np.log(2) == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize(
    ("shares", "verified", "sampled", "verdict"),
    [
        (USUAL, 500, 1000, ALIKE),
        (USUAL, 500, 20, TOO_FEW),
        (USUAL, 20, 1000, TOO_FEW),
        (USUAL, 40, 40, TOO_FEW),
        ([0.5, 0.3, 0.15, 0.05], 500, 1000, SHIFT),
        ([0.5, 0.3, 0.15, 0.05], 60, 40, SHIFT),
        ([0.5, 0.3, 0.15, 0.05], 500, 29, TOO_FEW),
        ([0.06, 0.16, 0.3, 0.48], 500, 100_000, ALIKE),
    ],
)
def test_a_shift_is_larger_than_the_bound_and_than_chance(
    shares: list[float], verified: int, sampled: int, verdict: str
) -> None:
    assert compare_part("scores", draw(USUAL, verified, 1), draw(shares, sampled, 2)).verdict == verdict


def test_chance_is_what_one_of_a_hundred_equal_pairs_exceeds() -> None:
    compared = [compare_part("scores", draw(USUAL, 200, seed), draw(USUAL, 200, seed + 1000)) for seed in range(200)]
    exceeded = sum(each.distance > each.chance for each in compared if each.distance is not None)
    assert exceeded <= 8  # of 200 the mean is 2
    assert 0.9 < CHANCE < 1


def test_the_same_samples_give_the_same_figures() -> None:
    first, second = (compare_part("scores", draw(USUAL, 100, 1), draw(USUAL, 100, 2)) for _ in range(2))
    assert first == second


def test_a_side_without_images_has_no_distance() -> None:
    compared = compare_part("scores", {"0.99-1": 100.0}, {})
    assert (compared.distance, compared.verdict) == (None, TOO_FEW)


def test_bins_have_their_order_and_classes_theirs_by_frequency() -> None:
    assert order_bins("scores", {"0.99-1": 1.0, NOTHING: 1.0}, {"0-0.2": 1.0}) == [NOTHING, "0-0.2", "0.99-1"]
    assert order_bins("classes", {"1": 1.0, "2": 3.0}, {NOTHING: 9.0, "3": 1.0}) == ["2", "1", "3", NOTHING]
