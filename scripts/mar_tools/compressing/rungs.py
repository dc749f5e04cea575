"""What is tried next: from the middle outwards, as nothing harsher than what lost too much can be good enough."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mar_tools.compressing.steps import Steps

SIZES = (0.75, 0.5)
SHARES = (0.3, 0.5, 0.7)
MULTIPLE = 16  # of a smaller picture's side


class Rungs:
    """All that may be done to a network whose square pictures have this side. All learn from the original."""

    def __init__(self, size: int, original: Path) -> None:
        sides = {max(MULTIPLE, round(share * size / MULTIPLE) * MULTIPLE) for share in SIZES}
        smaller = [side for side in sides if side < size]
        cuts = [(side, share) for side in (None, *smaller) for share in (None, *SHARES) if side or share]
        self.floats = [Steps(size=side, prune=share, teacher=original) for side, share in cuts]
        self.floats.sort(key=_cost, reverse=True)  # the gentlest first
        # The first shows what the teacher is worth, the second what int8 costs where nothing else is done.
        self.last = [Steps(prune=SHARES[1]), Steps(quantise="affine")]

    def choose(self, tried: Mapping[Steps, bool], without_int8: Sequence[Steps]) -> Steps | None:
        """Return what to try next, None where nothing is left that could be of use.

        tried: whether each lost little enough. without_int8: those of them that have no int8 yet, which is trained.
        """
        left = [steps for steps in self.floats if steps not in tried and not self.is_hopeless(steps, tried)]
        open_ones = [steps for steps in left if not any(ok and _takes_no_more(steps, t) for t, ok in tried.items())]
        if open_ones:
            return open_ones[len(open_ones) // 2]
        trained = [steps.model_copy(update={"quantise": "affine"}) for steps in self.floats if steps in without_int8]
        last = [steps for steps in self.last if not self.is_hopeless(steps, tried)]
        harshest_first = (*reversed(trained), *last, *reversed(left))
        return next((steps for steps in harshest_first if steps not in tried), None)

    def is_hopeless(self, steps: Steps, tried: Mapping[Steps, bool]) -> bool:
        """Return whether it takes at least as much away as something that lost too much."""
        return any(not ok and _takes_no_more(other, steps) for other, ok in tried.items() if other in self.floats)


def _takes_no_more(one: Steps, other: Steps) -> bool:
    return (one.size or float("inf")) >= (other.size or float("inf")) and (one.prune or 0) <= (other.prune or 0)


def _cost(steps: Steps) -> float:
    """Return about what share of the arithmetic is left, up to a factor."""
    return float((steps.size or 10_000) ** 2 * (1 - (steps.prune or 0.0)) ** 2)
