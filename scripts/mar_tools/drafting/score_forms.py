"""What the numbers are that a network gives for classes: scores, or values that lack their sigmoid or softmax."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mar_tools.drafting.drafts import Noted, assume
from vision_serving.errors import ConfigError

SCORES = ("logit", "prob", "score", "softmax", "pred", "cls", "class", "conf")  # parts of names
FEATURES = ("feat", "embed", "hidden", "pool", "vector", "token")
SUM_TOLERANCE = 1e-3
ALMOST_ALL = 0.99
LARGEST_LOGIT = 30.0  # its sigmoid is 1 in float32; pixels and percents go beyond
ENOUGH_CLASSES = 3  # fewer may leave the first one out by chance
ONE_VALUE = (
    "whether its one value is the score of one class. Where it lacks its sigmoid, leave out `format: probabilities`"
)
INDEPENDENT = (
    "whether an image has one class: on photographs all values are below 0, as those of independent classes mostly "
    "are. Where each has a score of its own, add `output: {activation: sigmoid}`"
)

Keys = dict[str, Any]  # of an `output:`


def are_scores(values: Tensor) -> bool:
    """Return whether all are in [0, 1]."""
    return bool(values.min() >= -SUM_TOLERANCE) and bool(values.max() <= 1 + SUM_TOLERANCE)


def sum_to_one(scores: Tensor) -> bool:
    """Return whether the scores (..., C) of nearly all boxes or images sum to 1, as after a softmax."""
    near = ((scores.sum(-1) - 1).abs() <= SUM_TOLERANCE).float().mean()
    return scores.shape[-1] > 1 and bool(scores.min() >= 0) and bool(near >= ALMOST_ALL)


def is_called(name: str, parts: tuple[str, ...]) -> bool:
    return any(part in name.lower() for part in parts)


def find_dense_scores(dense: Mapping[str, Tensor]) -> str:
    """Return which value (N, Q, C) beside boxes is the scores, not landmarks. Raises ConfigError where none is."""
    named = [name for name in dense if is_called(name, SCORES)]
    likely = [name for name, values in dense.items() if are_scores(values)]
    for names in (list(dense), named, likely):
        if len(names) == 1:
            return names[0]
    shapes = ", ".join(f"{name} {tuple(values.shape)}" for name, values in dense.items()) or "none has as many"
    raise ConfigError(f"which of its answers are the scores of its boxes is not clear: {shapes}")


def read_class_scores(values: Tensor) -> tuple[Keys, int]:
    """Return what makes scores of (N, Q, C), and the number of classes without a background.

    Raises ConfigError for values that are neither scores nor logits.
    """
    classes = values.shape[-1]
    if sum_to_one(values):
        place = _most_common_end(values) or "last"
        return {"background": assume(place, "scores of a box sum to 1, and most boxes have this class")}, classes - 1
    if are_scores(values):
        return {}, classes
    _check_logits(values)
    place = has_background_logits(values)
    if place:
        share = "values that do not sum to 1, of which this class has the largest in most boxes"
        return {"activation": assume("softmax", share), "background": assume(place, share)}, classes - 1
    return {"activation": Noted("sigmoid", _tell_range(values))}, classes


def read_box_scores(values: Tensor) -> Keys:
    """Return what makes scores of (N, Q), one a box. Raises ConfigError for values that are neither."""
    if are_scores(values):
        return {}
    _check_logits(values)
    return {"activation": Noted("sigmoid", _tell_range(values))}


def read_first_class(class_ids: Tensor, scores: Tensor) -> tuple[Keys, tuple[str, ...]]:
    """Return whether classes (N, Q) are counted from 1, and what is not known of it."""
    told = class_ids[(scores > 0) & (class_ids >= 0)]
    seen = sorted(set(told.int().tolist()))
    if not seen or seen[0] == 0:
        return {}, ()
    if seen[0] == 1 and len(seen) >= ENOUGH_CLASSES:
        why = f"boxes of photographs are of {len(seen)} classes, the first of them 1"
        return {"background": assume("first", why)}, ()
    note = (
        f"whether classes are counted from 0: on photographs the least was {seen[0]}. Where they are counted from 1, "
        "add `background: first` under `output`"
    )
    return {}, (note,)


def has_background_logits(values: Tensor) -> str:
    """Return at which end of logits (N, Q, C) the class of nothing is: `first`, `last` or ``, where there is none.

    Of independent logits nearly all are below 0, and so is the best of most boxes.
    """
    return _most_common_end(values) if bool((values.amax(-1) >= 0).float().mean() > 0.5) else ""


def _most_common_end(values: Tensor) -> str:
    """Return which end's class is the best of most boxes: `first`, `last` or ``."""
    best = values.argmax(-1)
    for place, number in (("first", 0), ("last", values.shape[-1] - 1)):
        if values.shape[-1] > 1 and float((best == number).float().mean()) > 0.5:
            return place
    return ""


def _check_logits(values: Tensor) -> None:
    """Raises ConfigError for what no sigmoid or softmax is meant for."""
    only_large = bool(values.median() > 0) and bool(values.max() > LARGEST_LOGIT)
    if bool(values.min() >= 0) or only_large:
        raise ConfigError(
            f"what should be its scores goes {_tell_range(values)}. Scores are in [0, 1], and of logits most are below "
            "0; numbers beyond are pixels, keypoints or percents. Write a `decode` for it (docs/use/own_models.md, a "
            "package with its own decode)"
        )


def _tell_range(values: Tensor) -> str:
    return f"from {float(values.min()):.3g} to {float(values.max()):.3g}"
