"""What an answer of each kind says below its picture, whether it is right, and when two of them differ."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mar_tools.images import show_line
from mar_tools.reporting.evidence import Evidence
from mar_tools.reporting.pictures import FindAnswer, Picture, embed_picture
from mar_tools.verification.agreement import THRESHOLD_SLACK, TIE_SCORE, TIE_SHARE, choose_thresholds, match_boxes
from mar_tools.verification.golden_making import find_score_threshold
from mar_tools.verification.kept_answers import Answer
from vision_serving.predictions import (
    Detection,
    Detections,
    ImageSize,
    KeypointDetection,
    OrientedDetection,
    PolygonDetection,
)
from vision_serving.results.masks import place_mask, trace_polygons
from vision_serving.results.postprocessing import Candidates

SHOWN_CLASSES = 3
NAMED_LABELS = 5  # of a picture with several


@dataclass(frozen=True)
class Bar:
    """One class of an answer."""

    label: str
    score: float
    is_true: bool


@dataclass(frozen=True)
class Caption:
    """What one side answered. bars: of classes. line: of boxes. right: None where the truth is not known."""

    side: str
    picture: Picture
    bars: Sequence[Bar] = ()
    line: str = ""
    alt: str = ""
    truth: str = ""
    right: bool | None = None


@dataclass(frozen=True)
class Judgement:
    """truth: in words. weight: how wrong it is, to sort by."""

    truth: str = ""
    right: bool | None = None
    weight: float = 0.0


@dataclass(frozen=True)
class Change:
    """is_near: rounding may decide it."""

    is_near: bool
    note: str = ""


class Classes:
    """Of a classifier: the best classes."""

    shown = SHOWN_CLASSES

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence

    def name(self, index: int) -> str:
        return show_line(Path(*self.evidence.paths[index].parts[-2:]))

    def caption(self, index: int, side: str, answer: Answer) -> Caption:
        bars = self._bars(index, answer)
        best = f"answered {bars[0].label}, {bars[0].score:.2f}" if bars else "nothing answered"
        return Caption(side, self._embed(index, lambda size: None), bars, alt=f"{self.name(index)}: {best}")

    def _bars(self, index: int, answer: Answer) -> list[Bar]:
        true = self._true_classes(index)
        best = zip(answer["class_ids"].tolist()[: self.shown], answer["scores"].tolist(), strict=False)
        return [Bar(self.evidence.label(class_id), score, class_id in true) for class_id, score in best]

    def _true_classes(self, index: int) -> set[int]:
        return set(self.evidence.truth[index]["class_ids"].tolist()) if self.evidence.truth else set()

    def judge(self, index: int, answer: Answer) -> Judgement:
        if self.evidence.truth is None:
            return Judgement()
        true = self._true_classes(index)
        right = int(answer["class_ids"][0]) in true
        return Judgement(f"it is {self.evidence.label(min(true))}", right, float(answer["scores"][0]))

    def compare(self, index: int, before: Answer, after: Answer) -> Change | None:
        """Return what changed; None where the best class is the same."""
        best, other = int(before["class_ids"][0]), int(after["class_ids"][0])
        if best == other:
            return None
        scores = dict(zip(before["class_ids"].tolist(), before["scores"].tolist(), strict=True))
        is_near = scores.get(other, 0.0) >= float(before["scores"][0]) * (1 - TIE_SHARE) - TIE_SCORE
        return Change(is_near, "a near tie, which rounding decides" if is_near else "")

    def _embed(self, index: int, find_answer: FindAnswer) -> Picture:
        return embed_picture(self.evidence.paths[index], self.evidence.config.colours, find_answer)


class Labels(Classes):
    """Of a classifier with independent scores: the labels above their thresholds."""

    shown = NAMED_LABELS

    def judge(self, index: int, answer: Answer) -> Judgement:
        if self.evidence.truth is None:
            return Judgement()
        true, found = self._true_classes(index), _above(answer, 1.0)
        words = [self._list("it shows", true) or "it shows none of the labels"]
        words += filter(None, [self._list("missed:", true - found), self._list("too many:", found - true)])
        return Judgement("; ".join(words), true == found, len(true ^ found))

    def _list(self, words: str, class_ids: set[int]) -> str:
        """Return the labels behind some words, in the order of the classes; nothing of none."""
        labels = dict.fromkeys(map(self.evidence.label, sorted(class_ids)))
        return f"{words} {', '.join(labels)}" if labels else ""

    def compare(self, index: int, before: Answer, after: Answer) -> Change | None:
        sides = [_above(answer, 1.0) for answer in (before, after)]
        gone, new = (sorted(map(self.evidence.label, these - those)) for these, those in (sides, sides[::-1]))
        if not gone and not new:
            return None
        clear = [_above(answer, 1 + THRESHOLD_SLACK) for answer in (before, after)]
        is_near = not (clear[0] - sides[1] or clear[1] - sides[0])
        words = [f"{what}: {', '.join(labels)}" for what, labels in (("gone", gone), ("new", new)) if labels]
        return Change(is_near, "; ".join(words))


def _above(answer: Answer, slack: float) -> set[int]:
    kept = answer["scores"] > answer["thresholds"] * slack
    return set(answer["class_ids"][kept].tolist())


class Neighbours(Classes):
    """Of an embedding: the other images that are nearest, by their cosine."""

    def _bars(self, index: int, answer: Answer) -> list[Bar]:
        nearest = zip(answer["images"].tolist()[:SHOWN_CLASSES], answer["scores"].tolist(), strict=False)
        return [Bar(self.name(other), max(0.0, score), self._is_alike(index, other)) for other, score in nearest]

    def _is_alike(self, index: int, other: int) -> bool:
        truth = self.evidence.truth
        return truth is not None and int(truth[index]["class_ids"]) == int(truth[other]["class_ids"])

    def judge(self, index: int, answer: Answer) -> Judgement:
        if self.evidence.truth is None or not len(answer["images"]):
            return Judgement()
        right = self._is_alike(index, int(answer["images"][0]))
        words = "the nearest is of the same class" if right else "the nearest is of another class"
        return Judgement(words, right, float(answer["scores"][0]))

    def compare(self, index: int, before: Answer, after: Answer) -> Change | None:
        best, other = int(before["images"][0]), int(after["images"][0])
        if best == other:
            return None
        return Change(
            float(before["scores"][0]) - float(after["scores"][0]) < TIE_SHARE, "another image is the nearest"
        )


class Boxes(Classes):
    """Of a detector: what it would answer, or its best boxes where it finds nothing in these images."""

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(evidence)
        answers = (evidence.reference or evidence.main).answers or ()
        threshold = find_score_threshold(evidence.config) or 0.0
        self._thresholds = choose_thresholds([answer["scores"] for answer in answers], threshold)

    def caption(self, index: int, side: str, answer: Answer) -> Caption:
        found = self._boxes_of(index, answer)
        counts = Counter(map(self.evidence.label, found.class_ids.tolist())).most_common()
        named = [label if count == 1 else f"{label} ×{count}" for label, count in counts[:NAMED_LABELS]]  # noqa: RUF001
        named += [f"and {len(counts) - NAMED_LABELS} more"] * (len(counts) > NAMED_LABELS)
        line = f"{count_boxes(len(found.scores))}: {', '.join(named)}" if named else "nothing found"
        picture = self._embed(index, lambda size: self._to_detections(found, answer, size))
        return Caption(side, picture, line=line, alt=f"{self.name(index)} with its answer drawn, {line}")

    def judge(self, index: int, answer: Answer) -> Judgement:
        if self.evidence.truth is None:
            return Judgement()
        truth = self.evidence.truth[index]
        counted = truth["iscrowd"] == 0
        known = Candidates(truth["boxes"][counted], torch.ones(int(counted.sum())), truth["labels"][counted])
        found = self._boxes_of(index, answer)
        pairs = len(match_boxes(known, found, 0.0).pairs)
        missed, extra = len(known.scores) - pairs, len(found.scores) - pairs
        words = [f"{pairs} of {len(known.scores)} annotated found"] + [f"{count_boxes(extra)} too many"] * (extra > 0)
        return Judgement(", ".join(words), not missed and not extra, missed + extra)

    def compare(self, index: int, before: Answer, after: Answer) -> Change | None:
        expected, found = (self._boxes_of(index, answer) for answer in (before, after))
        match = match_boxes(expected, found, self._thresholds[index])
        gone, new = (len(side.scores) - len(match.pairs) for side in (expected, found))
        if not gone and not new:
            return None
        is_near = match.paid == match.owed
        words = [f"{count_boxes(count)} {what}" for what, count in (("gone", gone), ("new", new)) if count]
        words += [f"all within {THRESHOLD_SLACK:.0%} of the threshold"] * is_near
        return Change(is_near, ", ".join(words))

    def _boxes_of(self, index: int, answer: Answer) -> Candidates:
        kept = (answer["scores"] > self._thresholds[index]).nonzero().squeeze(1)
        return Candidates(answer["source_boxes"][kept], answer["scores"][kept], answer["class_ids"][kept], kept)

    def _to_detections(self, found: Candidates, answer: Answer, size: ImageSize) -> Detections:
        label = self.evidence.label
        rows = zip(found.class_ids.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
        boxes = [Detection(class_id, label(class_id), score, tuple(box)) for class_id, score, box in rows]
        name = next((name for name in INSTANCES if name in answer), None)
        if name is not None:
            values = answer[name][found.rows]
            boxes = [INSTANCES[name](*each, size) for each in zip(boxes, values, found.boxes, strict=True)]
        return Detections(tuple(boxes), size)


def add_corners(box: Detection, corners: Tensor, box_xyxy: Tensor, size: ImageSize) -> Detection:
    """Return the box turned; without corners as it is. corners: (4, 2) in parts of the box."""
    if not corners.isfinite().all():
        return box
    return OrientedDetection(**vars(box), corners=tuple(_place(corners, box_xyxy).flatten().tolist()))


def add_keypoints(box: Detection, keypoints: Tensor, box_xyxy: Tensor, size: ImageSize) -> Detection:
    """Return the box with its points, if it has some. keypoints: (P, 3), x and y in parts of the box."""
    if not keypoints.isfinite().all():
        return box
    placed = torch.cat((_place(keypoints[:, :2], box_xyxy), keypoints[:, 2:]), dim=1)
    return KeypointDetection(**vars(box), keypoints=tuple((x, y, score) for x, y, score in placed.tolist()))


def add_outline(box: Detection, mask: Tensor, box_xyxy: Tensor, size: ImageSize) -> Detection:
    """Return the box with the outline of its mask (CELLS, CELLS)."""
    polygons = trace_polygons(place_mask(mask.float(), box_xyxy), (size.height, size.width))
    return PolygonDetection(**vars(box), polygons=polygons)


def _place(points: Tensor, box_xyxy: Tensor) -> Tensor:
    """Return points (P, 2) in parts of a box in its pixels."""
    return points * (box_xyxy[2:] - box_xyxy[:2]) + box_xyxy[:2]


# Of what a kept answer has beyond boxes, how a box gets it.
INSTANCES: dict[str, Callable[[Detection, Tensor, Tensor, ImageSize], Detection]] = {
    "corners": add_corners,
    "keypoints": add_keypoints,
    "masks": add_outline,
}


def count_boxes(count: int) -> str:
    return f"{count} box{'es' * (count != 1)}"


def choose_kind(evidence: Evidence) -> Classes:
    """Choose by the task, and for a classifier by whether its labels exclude each other."""
    if evidence.config.task == "detection":
        return Boxes(evidence)
    if evidence.config.task == "embedding":
        return Neighbours(evidence)
    return (Labels if evidence.config.activation == "sigmoid" else Classes)(evidence)
