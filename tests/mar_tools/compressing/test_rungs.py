"""What a ladder tries, in which order, when so much may be taken away and no more."""

from pathlib import Path

import pytest

from mar_tools.compressing.rungs import Rungs
from mar_tools.compressing.steps import Steps


def climb(least_size: int, most_prune: float, with_int8: bool) -> list[str]:
    """Return what is tried where these limits decide whether something is good enough."""
    rungs, tried = Rungs(96, Path("recipe.yaml")), dict[Steps, bool]()

    def is_good(steps: Steps) -> bool:
        return (steps.size or 96) >= least_size and (steps.prune or 0) <= most_prune

    while True:
        good = [] if with_int8 else [steps for steps, ok in tried.items() if ok and not steps.quantise]
        chosen = rungs.choose(tried, good)
        if chosen is None:
            return [steps.describe() for steps in tried]
        assert chosen not in tried
        tried[chosen] = is_good(chosen)


@pytest.mark.parametrize(
    ("least_size", "most_prune", "fastest"),
    [
        (96, 0.5, "prune 0.5, distilled"),
        (64, 0.3, "size 64, prune 0.3, distilled"),
        (48, 0.7, "size 48, prune 0.7, distilled"),
        (48, 0.0, "size 48, distilled"),
        (50, 0.0, "size 64, distilled"),
    ],
)
def test_the_fastest_that_is_good_enough_is_among_the_first(least_size: int, most_prune: float, fastest: str) -> None:
    order = climb(least_size, most_prune, with_int8=True)
    assert fastest in order[:7]
    assert len(set(order)) == len(order)


def test_nothing_harsher_than_what_lost_too_much_is_tried() -> None:
    order = climb(64, 0.0, with_int8=True)
    assert not [name for name in order if "size 48" in name and "prune" in name]
    assert "prune 0.5" not in order


def test_where_nothing_may_be_lost_the_gentlest_are_tried_and_then_int8() -> None:
    order = climb(96, 0.0, with_int8=True)
    assert "prune 0.3, distilled" in order
    assert "size 64, distilled" in order
    assert order[-1] == "int8 trained"


def test_int8_is_trained_for_what_is_good_and_has_none_the_harshest_first() -> None:
    order = climb(48, 0.7, with_int8=False)
    trained = [name for name in order if name.endswith("int8 trained")]
    assert trained[0] == "size 48, prune 0.7, distilled, int8 trained"
    assert not [name for name in climb(48, 0.7, with_int8=True) if name.endswith("distilled, int8 trained")]


def test_of_a_small_picture_no_smaller_one_is_tried() -> None:
    assert not any(steps.size for steps in Rungs(16, Path("recipe.yaml")).floats)
