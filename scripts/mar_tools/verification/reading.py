"""Whether the reference is read as its author meant: its own answers to the verification pictures have to be possible.

The gate compares an export with the reference, and cannot see what is wrong with both.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from mar_tools.images import read_image
from mar_tools.models.recipes import Oddity
from mar_tools.verification.box_reading import BOX_CHECKS, BOX_WARNINGS, box_ranges
from mar_tools.verification.class_reading import CLASS_CHECKS, CLASS_WARNINGS, VECTOR_CHECKS, class_ranges
from mar_tools.verification.seen_answers import ENOUGH_IMAGES, Check, Range, Seen
from vision_serving.options import Task

CHECKS: dict[Task, dict[str, tuple[Check, bool]]] = {
    "classification": CLASS_CHECKS,
    "detection": BOX_CHECKS,
    "embedding": VECTOR_CHECKS,
}
WARNINGS: dict[Task, tuple[Check, ...]] = {"classification": CLASS_WARNINGS, "detection": BOX_WARNINGS, "embedding": ()}
RANGES: dict[Task, Callable[[Seen], dict[str, Range]]] = {
    "classification": class_ranges,
    "detection": box_ranges,
    "embedding": class_ranges,
}


@dataclass(frozen=True)
class Reading:
    """faults: what cannot be. warnings: what may be. ranges: of the reference's raw answers, least and largest.

    is_impossible: whether no owner can know it to be right.
    """

    faults: list[str] = field(default_factory=list)
    is_impossible: bool = False
    warnings: list[str] = field(default_factory=list)
    ranges: Mapping[str, Range] = field(default_factory=dict)


def check_reading(seen: Seen, allowed: Sequence[str], *, random_weights: bool) -> Reading:
    """Look for what no right reading gives. allowed: names of checks whose answer the owner knows to be right.

    Random weights answer nothing, so of them only what holds for any weights is asked.
    """
    if not seen.observations:
        return Reading()
    ranges = RANGES[seen.config.task](seen)
    for name, (check, is_impossible) in CHECKS[seen.config.task].items():
        found = check(seen) if is_impossible or not random_weights else None
        if found and name not in allowed:  # what comes after is mostly the same fault, seen from another side
            raw = ", ".join(f"{what} {low:.4g} to {high:.4g}" for what, (low, high) in ranges.items())
            hint = f". Where it is right: `verification: {{allow: [{name}]}}`" if name in get_args(Oddity) else ""
            return Reading(
                [f"the reference is misread: {found}. Its raw answers: {raw}{hint}"], is_impossible, [], ranges
            )
    warnings = [] if random_weights else [warn(seen) for warn in WARNINGS[seen.config.task]]
    return Reading(warnings=[warning for warning in warnings if warning], ranges=ranges)


def have_different_content(paths: Sequence[Path]) -> bool:
    return len({read_image(path) for path in paths[:ENOUGH_IMAGES]}) > 1
