"""Which pictures a report shows, and what is written below them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mar_tools.images import show_line, spread_evenly
from mar_tools.reporting.evidence import Evidence
from mar_tools.reporting.pictures import FindAnswer, Picture, embed_picture
from mar_tools.verification.agreement import (
    THRESHOLD_SLACK,
    TIE_SCORE,
    TIE_SHARE,
    Match,
    choose_thresholds,
    match_boxes,
)
from mar_tools.verification.golden_making import find_score_threshold
from mar_tools.verification.kept_answers import Answer
from mar_tools.verification.labelled import Truth
from vision_serving.predictions import Detection, Detections, ImageSize
from vision_serving.results.postprocessing import Candidates

SAMPLES, MISTAKES, CHANGES = 24, 12, 12
SHOWN_CLASSES = 3
NAMED_LABELS = 4  # in the line below a picture with boxes


@dataclass(frozen=True)
class Bar:
    """One class of an answer."""

    label: str
    score: float
    is_true: bool


@dataclass(frozen=True)
class Caption:
    """What one side answered. bars: of a classifier. line: of a detector."""

    side: str
    picture: Picture
    bars: Sequence[Bar] = ()
    line: str = ""
    alt: str = ""


@dataclass(frozen=True)
class Shown:
    """One image. right: None where the truth is not known. note: what else is to be said."""

    name: str
    captions: Sequence[Caption]
    truth: str = ""
    right: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class Galleries:
    """changed: how many answers the chosen one changed, None where that is not known; near: of them by rounding."""

    samples: Sequence[Shown]
    mistakes: Sequence[Shown]
    mistake_count: int
    changes: Sequence[Shown]
    changed: int | None
    near: int


class Curator:
    """Chooses and captions the pictures of one report."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        threshold = find_score_threshold(evidence.config)
        self._is_detector = threshold is not None
        threshold = threshold or 0.0
        first = (evidence.reference or evidence.main).answers or ()
        # The answers that a server would give; of a detector that finds nothing here, its best boxes.
        self._thresholds = choose_thresholds([answer["scores"] for answer in first], threshold)
        self._is_lowered = any(each < threshold for each in self._thresholds)

    def choose(self) -> Galleries:
        evidence = self._evidence
        shown_side = evidence.reference or evidence.main
        answers = shown_side.answers
        if not answers:
            return Galleries((), (), 0, (), None, 0)
        samples = [self._show(index, {shown_side.name: answers[index]}) for index in self._spread(len(answers))]
        wrong = self._find_mistakes(evidence.main.answers or answers)
        main = {evidence.main.name: evidence.main.answers or answers}
        mistakes = [self._show(index, {name: side[index] for name, side in main.items()}) for index in wrong[:MISTAKES]]
        return Galleries(samples, mistakes, len(wrong), *self._show_changes())

    def _spread(self, count: int) -> list[int]:
        return spread_evenly(range(count), SAMPLES)

    def _find_mistakes(self, answers: Sequence[Answer]) -> list[int]:
        """Return the images that are answered wrong, the surest mistakes first; of boxes, the most mistakes."""
        truth = self._evidence.truth
        if truth is None:
            return []
        if self._is_detector:
            counts = {index: sum(self._judge_boxes(index, answers[index])[1:]) for index in range(len(answers))}
            return sorted((index for index, count in counts.items() if count), key=lambda index: -counts[index])
        wrong = [i for i, answer in enumerate(answers) if int(answer["class_ids"][0]) != int(truth[i]["class_id"])]
        return sorted(wrong, key=lambda index: -float(answers[index]["scores"][0]))

    def _show_changes(self) -> tuple[list[Shown], int | None, int]:
        reference, chosen = self._evidence.reference, self._evidence.chosen
        if reference is None or chosen is None or not (reference.answers and chosen.answers):
            return [], None, 0
        if reference.name == chosen.name:
            return [], 0, 0
        changed = self._find_changes(reference.answers, chosen.answers)
        shown = [
            self._show(index, {reference.name: reference.answers[index], chosen.name: chosen.answers[index]}, note)
            for index, _, note in changed[:CHANGES]
        ]
        return shown, len(changed), sum(is_near for _, is_near, _ in changed)

    def _find_changes(self, before: Sequence[Answer], after: Sequence[Answer]) -> list[tuple[int, bool, str]]:
        """Return index, whether rounding alone may decide it, and what changed; the clearest first."""
        compare = self._compare_boxes if self._is_detector else self._compare_classes
        found = [(index, *compare(index, *sides)) for index, sides in enumerate(zip(before, after, strict=True))]
        changed = [(index, is_near, note) for index, is_near, note in found if is_near is not None]
        return sorted(changed, key=lambda change: change[1])

    def _compare_classes(self, _: int, before: Answer, after: Answer) -> tuple[bool | None, str]:
        best, second = int(before["class_ids"][0]), int(after["class_ids"][0])
        if best == second:
            return None, ""
        scores = dict(zip(before["class_ids"].tolist(), before["scores"].tolist(), strict=True))
        least = float(before["scores"][0]) * (1 - TIE_SHARE) - TIE_SCORE
        is_near = scores.get(second, 0.0) >= least
        return is_near, "a near tie, which rounding decides" if is_near else ""

    def _compare_boxes(self, index: int, before: Answer, after: Answer) -> tuple[bool | None, str]:
        expected, found = (self._boxes_of(index, answer) for answer in (before, after))
        match = match_boxes(expected, found, self._thresholds[index])
        gone, new = (len(side.scores) - len(match.pairs) for side in (expected, found))
        if not gone and not new:
            return None, ""
        is_near = match.paid == match.owed
        near = f", all within {THRESHOLD_SLACK:.0%} of the threshold" if is_near else ""
        return is_near, f"{gone} box{'es' * (gone != 1)} gone, {new} new{near}"

    def _boxes_of(self, index: int, answer: Answer) -> Candidates:
        kept = answer["scores"] > self._thresholds[index]
        return Candidates(answer["source_boxes"][kept], answer["scores"][kept], answer["class_ids"][kept])

    def _judge_boxes(self, index: int, answer: Answer) -> tuple[int, int, int]:
        """Return how many annotated boxes were found and missed, and how many others there are."""
        assert self._evidence.truth is not None
        known = _boxes_of_truth(self._evidence.truth[index])
        found = self._boxes_of(index, answer)
        match: Match = match_boxes(known, found, 0.0)
        return len(match.pairs), len(known.scores) - len(match.pairs), len(found.scores) - len(match.pairs)

    def _show(self, index: int, answers: dict[str, Answer], note: str = "") -> Shown:
        path = self._evidence.paths[index]
        name = show_line(Path(*path.parts[-2:]))
        caption = self._caption_boxes if self._is_detector else self._caption_classes
        captions = [caption(index, name, side, answer) for side, answer in answers.items()]
        return Shown(name, captions, *self._judge(index, next(iter(answers.values()))), note)

    def _judge(self, index: int, answer: Answer) -> tuple[str, bool | None]:
        """Return the truth in words, and whether the answer is right."""
        if self._evidence.truth is None:
            return "", None
        if self._is_detector:
            found, missed, more = self._judge_boxes(index, answer)
            return f"annotated {found + missed}: {found} found, {missed} missed, {more} more", not missed and not more
        class_id = int(self._evidence.truth[index]["class_id"])
        return self._evidence.label(class_id), class_id == int(answer["class_ids"][0])

    def _caption_classes(self, index: int, name: str, side: str, answer: Answer) -> Caption:
        truth = self._evidence.truth
        true = None if truth is None else int(truth[index]["class_id"])
        best = zip(answer["class_ids"].tolist()[:SHOWN_CLASSES], answer["scores"].tolist(), strict=False)
        bars = [Bar(self._evidence.label(class_id), score, class_id == true) for class_id, score in best]
        picture = self._embed(index, lambda size: None)
        return Caption(side, picture, bars, alt=f"{name}: answered {bars[0].label}, {bars[0].score:.2f}")

    def _caption_boxes(self, index: int, name: str, side: str, answer: Answer) -> Caption:
        found = self._boxes_of(index, answer)
        labels = Counter(map(self._evidence.label, found.class_ids.tolist()))
        named = [f"{count} × {label}" for label, count in labels.most_common(NAMED_LABELS)]  # noqa: RUF001
        more = ["more"] * (len(labels) > NAMED_LABELS)
        line = f"{len(found.scores)}: {', '.join(named + more)}" if named else "nothing found"
        picture = self._embed(index, lambda size: self._to_detections(found, size))
        return Caption(side, picture, line=line, alt=f"{name} with boxes drawn, {line}")

    def _embed(self, index: int, find_answer: FindAnswer) -> Picture:
        return embed_picture(self._evidence.paths[index], self._evidence.config.colours, find_answer)

    def _to_detections(self, found: Candidates, size: ImageSize) -> Detections:
        rows = zip(found.class_ids.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
        return Detections(
            tuple(
                Detection(class_id, self._evidence.label(class_id), score, tuple(box)) for class_id, score, box in rows
            ),
            size,
        )


def _boxes_of_truth(truth: Truth) -> Candidates:
    counted = truth["iscrowd"] == 0
    boxes, class_ids = truth["boxes"][counted], truth["labels"][counted]
    return Candidates(boxes, torch.ones(len(boxes)), class_ids)
