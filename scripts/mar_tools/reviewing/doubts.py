"""How sure an answer is, and how far two answers to one picture differ: numbers from 0 to 1, and the words for them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mar_tools.predicting.rows import Answer
from vision_serving.results.postprocessing import measure_iou

MATCH_IOU = 0.5
ALIKE = 0.05  # scores that differ by less are the same for a person
Found = Mapping[str, Any]  # a class or a detection of an answer


def find_doubt(answer: Answer) -> tuple[float, str] | None:
    """Return how unsure an answer is, and why; None where it tells nothing of it.

    Of classes that exclude each other, 1 minus the lead of the first one ("margin sampling"). Of others and of boxes,
    how near to 0.5 the score is that is nearest.
    """
    if "classes" in answer:
        classes: Sequence[Found] = answer["classes"]
        if len(classes) > 1 and sum(found["score"] for found in classes) <= 1 + 1e-3:
            first, second = classes[:2]
            lead = first["score"] - second["score"]
            return 1 - lead, f"{first['label']} leads {second['label']} by {lead:.2f}"
        return _nearest_to_half(classes)
    return _nearest_to_half(answer["detections"]) if "detections" in answer else None


def _nearest_to_half(found: Sequence[Found]) -> tuple[float, str] | None:
    """Return the doubt of the entry whose score is nearest to 0.5."""
    if not found:
        return None
    entry = min(found, key=lambda each: abs(each["score"] - 0.5))
    return 1 - 2 * abs(entry["score"] - 0.5), f"{entry['label']} has {entry['score']:.2f}"


def find_difference(first: Answer, second: Answer) -> tuple[float, str] | None:
    """Return how far two answers differ, and in what; None where a person would call them the same."""
    if "classes" in first and "classes" in second:
        return _differ_in_classes(first["classes"], second["classes"])
    if "detections" in first and "detections" in second:
        return _differ_in_boxes(first["detections"], second["detections"])
    if "embedding" in first and "embedding" in second:
        cosine = _cosine(first["embedding"], second["embedding"])
        return (1 - cosine, f"cosine {cosine:.3f}") if cosine < 1 - ALIKE else None
    return None


def _differ_in_classes(first: Sequence[Found], second: Sequence[Found]) -> tuple[float, str] | None:
    """Compare the first classes: where they differ, by the score of the one that is less sure."""
    names = [found[0]["label"] if found else "nothing" for found in (first, second)]
    if names[0] == names[1]:
        return None
    scores = [found[0]["score"] if found else 1.0 for found in (first, second)]
    return min(scores), f"{names[0]} / {names[1]}"


def _differ_in_boxes(first: Sequence[Found], second: Sequence[Found]) -> tuple[float, str] | None:
    """Compare boxes: those of a class without a partner, by the score of the surest of them."""
    partners = _pair(first, second)
    alone = [found for place, found in enumerate(first) if place not in partners]
    other = [found for place, found in enumerate(second) if place not in partners.values()]
    if not alone and not other:
        return None
    surest = max((*alone, *other), key=lambda found: found["score"])
    return float(surest["score"]), f"{len(alone)} / {len(other)} boxes without a partner, the surest {surest['label']}"


def _pair(first: Sequence[Found], second: Sequence[Found]) -> dict[int, int]:
    """Pair boxes of one class one to one, the best overlap first."""
    if not first or not second:
        return {}
    boxes = [np.array([found["box"] for found in side], np.float32) for side in (first, second)]
    overlaps = measure_iou(boxes[0][:, None], boxes[1][None])
    classes = [np.array([found["label"] for found in side]) for side in (first, second)]
    overlaps[classes[0][:, None] != classes[1][None]] = 0
    partners: dict[int, int] = {}
    for place in np.argsort(overlaps, axis=None)[::-1].tolist():
        row, column = divmod(place, overlaps.shape[1])
        if not overlaps[row, column] >= MATCH_IOU:
            break
        if row not in partners and column not in partners.values():
            partners[row] = column
    return partners


def _cosine(first: Sequence[float], second: Sequence[float]) -> float:
    one, other = np.asarray(first), np.asarray(second)
    if one.shape != other.shape:
        return -1.0
    return float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-12))
