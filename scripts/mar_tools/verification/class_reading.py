"""What is odd about the answers of a classifier, or the vectors of an embedding."""

import torch
from torch import Tensor

from mar_tools.verification.seen_answers import ENOUGH_IMAGES, SAME, Check, Found, Range, Seen, find_range
from vision_serving.results.postprocessing import SCORE_SLACK

SUM_SLACK = 0.02
SURE = 0.9  # a trained sigmoid comes so near to 1 somewhere
ROUNDING = 1e-5  # in parts of the largest value


def _logits(seen: Seen) -> Tensor:
    """Return logits (N, C), or the vectors (N, D) of an embedding."""
    name = "embedding" if seen.config.task == "embedding" else "logits"
    return torch.stack([image[name] for image in seen.observations])


def _probabilities_of(seen: Seen) -> Tensor:
    """Return what a network of the format `probabilities` gave, whose logarithm the graph takes."""
    return _logits(seen).exp()


def _is_softmaxed(seen: Seen) -> bool:
    """Return whether one class excludes the others."""
    return seen.output.activation != "sigmoid"


def _not_finite_logits(seen: Seen) -> Found:
    bad = int((~torch.isfinite(_logits(seen)).all(dim=1)).sum())
    if not bad:
        return None
    return f"it gives NaN or infinity for {bad} of {len(seen.observations)} pictures; look at the weights, mean and std"


def _one_logit(seen: Seen) -> Found:
    if _logits(seen).shape[1] > 1 or not _is_softmaxed(seen):
        return None
    return (
        "it gives one value a picture, and a softmax of one value is always 1. Expected one value a class. A network "
        "with one output mostly wants `output: {activation: sigmoid}`, or a second output in its file"
    )


def _not_probabilities(seen: Seen) -> Found:
    if seen.output.format != "probabilities" or not _is_softmaxed(seen):
        return None
    values = _probabilities_of(seen)
    sums = values.sum(dim=1)
    if ((sums - 1).abs() <= SUM_SLACK).all():
        return None
    in_range = float(values.max()) <= 1 + SCORE_SLACK
    fits = f"`output: {'{format: probabilities, activation: sigmoid}' if in_range else '{format: logits}'}`"
    return (
        f"`format: probabilities` means rows that sum to 1, and they sum to {float(sums.min()):.4g} to "
        f"{float(sums.max()):.4g}. This would fit: {fits}"
    )


def _probabilities_as_logits(seen: Seen) -> Found:
    values = _logits(seen)
    if seen.output.format == "probabilities" or not _is_softmaxed(seen) or values.shape[1] < 2:
        return None
    if float(values.min()) < 0 or ((values.sum(dim=1) - 1).abs() > 1e-3).any():
        return None
    return (
        "its values are in [0, 1] and sum to 1 for every picture, so it made probabilities itself. Read as logits they "
        "go through a second softmax. This would fit: `output: {format: probabilities}`"
    )


def _sigmoids_as_logits(seen: Seen) -> Found:
    values = _logits(seen)
    if seen.output.format == "probabilities" or not _is_softmaxed(seen) or len(values) < ENOUGH_IMAGES:
        return None
    if float(values.min()) < 0 or not SURE <= float(values.max()) <= 1:  # an untrained network may be there by chance
        return None
    return (
        "all its values are in [0, 1], and they do not sum to 1. So its last layer is a sigmoid, and each class has a "
        "score of its own; a softmax over them makes them all alike. This would fit: "
        "`output: {format: probabilities, activation: sigmoid}`"
    )


def _equal_logits(seen: Seen) -> Found:
    values = _logits(seen)
    if values.shape[1] < 2 or float((values.amax(dim=1) - values.amin(dim=1)).max()) > ROUNDING * float(
        values.abs().max()
    ):
        return None
    return "all its values are the same in every picture. Expected the trained weights"


def _same_logits(seen: Seen) -> Found:
    values = _logits(seen)
    spread = float(values.amax() - values.amin())
    if not seen.differing or float((values - values[0]).abs().max()) > SAME * spread:
        return None
    return (
        f"its answer to {len(values)} different pictures is the same. Expected answers that follow the picture; look "
        "at mean, std and the weights, and whether the network saw pixels in [0, 255]"
    )


def _best_classes(seen: Seen) -> set[int]:
    return set(_logits(seen).argmax(dim=1).tolist())


def _one_best_class(seen: Seen) -> Found:
    best = _best_classes(seen)
    known = _is_softmaxed(seen) and (seen.true_classes > 1 or (seen.truth is None and seen.own))
    if not known or len(best) > 1 or len(seen.observations) < ENOUGH_IMAGES or len(seen.labels) < 2:
        return None
    return (
        f"it sees {seen.labels[best.pop()]!r} in each of {len(seen.observations)} pictures. Expected several of "
        f"{len(seen.labels)} classes; look at mean, std, the colour order and the weights"
    )


def _warn_one_class(seen: Seen) -> Found:
    best = _best_classes(seen)
    if len(best) > 1 or len(seen.observations) < 2 or len(seen.labels) < 2 or not _is_softmaxed(seen):
        return None
    return (
        f"every picture is {seen.labels[best.pop()]!r} to the reference; pictures of several classes under "
        "`verification: images` would show whether it is read right"
    )


def class_ranges(seen: Seen) -> dict[str, Range]:
    if seen.output.format == "probabilities":
        return {
            "probabilities": find_range(_probabilities_of(seen)),
            "their sums": find_range(_probabilities_of(seen).sum(1)),
        }
    return {"values" if seen.config.task == "embedding" else "logits": find_range(_logits(seen))}


# name -> check, and whether it finds what is impossible, of any weights. The first that finds something is told.
CLASS_CHECKS: dict[str, tuple[Check, bool]] = {
    "not_finite": (_not_finite_logits, True),
    "one_logit": (_one_logit, True),
    "probabilities": (_not_probabilities, True),
    "softmax_twice": (_probabilities_as_logits, True),
    "equal_scores": (_equal_logits, False),
    "sigmoid": (_sigmoids_as_logits, False),
    "same_answer": (_same_logits, False),
    "one_class": (_one_best_class, False),
}
VECTOR_CHECKS = {name: CLASS_CHECKS[name] for name in ("not_finite", "equal_scores", "same_answer")}
CLASS_WARNINGS: tuple[Check, ...] = (_warn_one_class,)
