"""Which boxes of one answer have a partner in another. Nothing here needs PyTorch."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from vision_serving.predictions import Box

Boxed = TypeVar("Boxed")


def intersection_over_union(one: Box | None, other: Box | None) -> float:
    """Return the overlap of two xyxy boxes; 0 where one has no area or is missing."""
    if one is None or other is None:
        return 0.0
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - shared
    return shared / union if union > 0 else 0.0


def find_unpaired(
    owed: Sequence[Boxed], given: Sequence[Boxed], are_partners: Callable[[Boxed, Boxed], bool], *, one_to_one: bool
) -> list[Boxed]:
    """Return what is owed and has no partner among what is given. one_to_one: each of those is one's partner alone."""
    free, unpaired = list(given), []
    for entry in owed:
        partner = next((index for index, other in enumerate(free) if are_partners(entry, other)), None)
        if partner is None:
            unpaired.append(entry)
        elif one_to_one:
            del free[partner]
    return unpaired
