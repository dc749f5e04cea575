"""Where answers are right and wrong, by class. Small: it goes into the archive's verification.json."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mar_tools.verification.accuracy import average_precision, evaluate_boxes, mark_classes, precision_and_recall
from mar_tools.verification.kept_answers import Answer
from mar_tools.verification.labelled import Truth
from vision_serving.validation import StrictModel

MOST_CLASSES = 1000  # of more, the worst
MOST_CONFUSIONS = 400  # all pairs of a matrix that is shown
MOST_CURVES = 24  # of more classes, the most frequent
RECALL_STEP = 5  # of COCO's recalls 0, 0.01 ... 1
ALL_AREAS, MOST_BOXES = 0, -1  # in COCO's precisions


class ClassFigures(StrictModel):
    """Of one class that the truth has.

    count   how many images, or boxes
    share   of them answered right; of boxes the average precision over IoU 0.5 to 0.95, and share_50 at 0.5; of
            independent scores the average precision
    curve   precision at recalls 0, 0.05 ... 1, where it is kept; of boxes at IoU 0.5
    """

    class_id: int
    count: int
    share: float
    share_50: float | None = None
    curve: tuple[float, ...] = ()


class Confusion(StrictModel):
    """So many images of one class were answered with another."""

    class_id: int
    answered: int
    count: int


class ByClass(StrictModel):
    """The worst classes first, the most frequent confusions first; curve: the mean over all classes."""

    classes: tuple[ClassFigures, ...]
    confusions: tuple[Confusion, ...] = ()
    curve: tuple[float, ...] = Field(default=())


def measure_by_class(answers: Sequence[Answer], truth: Sequence[Truth]) -> ByClass:
    """Measure one answer per truth. Raises ConfigError where boxes need a package that is missing."""
    if "boxes" in truth[0]:
        return _measure_boxes(answers, truth)
    return (_measure_labels if "thresholds" in answers[0] else _measure_classes)(answers, truth)


def _measure_classes(answers: Sequence[Answer], truth: Sequence[Truth]) -> ByClass:
    pairs = Counter(_confuse(known, answer, truth) for known, answer in zip(truth, answers, strict=True))
    counts: Counter[int] = Counter()
    for (class_id, _), count in pairs.items():
        counts[class_id] += count
    figures = [
        ClassFigures(class_id=class_id, count=count, share=round(pairs[class_id, class_id] / count, 4))
        for class_id, count in counts.items()
    ]
    confused = [
        Confusion(class_id=class_id, answered=answered, count=count)
        for (class_id, answered), count in sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))
        if class_id != answered
    ]
    return ByClass(classes=_worst_first(figures), confusions=tuple(confused[:MOST_CONFUSIONS]))


def _confuse(known: Truth, answer: Answer, truth: Sequence[Truth]) -> tuple[int, int]:
    """Return the true class, of several with its label the first, and the best one; or that of the nearest image."""
    best = int(truth[int(answer["images"][0])]["class_ids"][0] if "images" in answer else answer["class_ids"][0])
    true = known["class_ids"].tolist()
    return true[0], true[0] if best in true else best


def _measure_labels(answers: Sequence[Answer], truth: Sequence[Truth]) -> ByClass:
    class_ids = [int(each["class_ids"].max()) for each in (*answers, *truth) if len(each["class_ids"])]
    scores = torch.zeros(len(answers), max(class_ids) + 1)
    for row, answer in zip(scores, answers, strict=True):
        row[answer["class_ids"]] = answer["scores"]
    present = mark_classes(truth, scores.shape[1])
    counts = Counter({each: int(count) for each, count in enumerate(present.sum(dim=0)) if count})
    curves = {each: _curve_of(*precision_and_recall(scores[:, each], present[:, each])) for each in counts}
    most = {class_id for class_id, _ in counts.most_common(MOST_CURVES)}
    figures = [
        ClassFigures(
            class_id=each,
            count=count,
            share=round(average_precision(scores[:, each], present[:, each]), 4),
            curve=_thin(curves[each]) if each in most else (),
        )
        for each, count in counts.items()
    ]
    return ByClass(classes=_worst_first(figures), curve=_thin(np.mean(list(curves.values()), axis=0)))


def _curve_of(precision: Tensor, recall: Tensor) -> np.ndarray:
    """Return the best precision from each of COCO's recalls on."""
    best = precision.flip(0).cummax(0).values.flip(0)
    return best[torch.searchsorted(recall, torch.linspace(0, 1, 101, dtype=recall.dtype))].numpy()


def _measure_boxes(answers: Sequence[Answer], truth: Sequence[Truth]) -> ByClass:
    evaluation = evaluate_boxes(answers, truth)
    counts = Counter(
        label
        for image in truth
        for label, crowd in zip(image["labels"].tolist(), image["iscrowd"].tolist(), strict=True)
        if not crowd
    )
    most = {class_id for class_id, _ in counts.most_common(MOST_CURVES)}
    # (IoUs, recalls, classes); -1 of classes without boxes
    precisions = evaluation.eval["precision"][:, :, :, ALL_AREAS, MOST_BOXES]
    figures = [
        ClassFigures(
            class_id=class_id,
            count=counts[class_id],
            share=round(float(precisions[:, :, index].mean()), 4),
            share_50=round(float(precisions[0, :, index].mean()), 4),
            curve=_thin(precisions[0, :, index]) if class_id in most else (),
        )
        for index, class_id in enumerate(evaluation.params.catIds)
        if counts[class_id]
    ]
    known = [index for index, class_id in enumerate(evaluation.params.catIds) if counts[class_id]]
    mean = _thin(precisions[0][:, known].mean(axis=1)) if known else ()
    return ByClass(classes=_worst_first(figures), curve=mean)


def _thin(precisions: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 3) for value in precisions[::RECALL_STEP])


def _worst_first(figures: Sequence[ClassFigures]) -> tuple[ClassFigures, ...]:
    return tuple(sorted(figures, key=lambda each: (each.share, -each.count, each.class_id))[:MOST_CLASSES])
