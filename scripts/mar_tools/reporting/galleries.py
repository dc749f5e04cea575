"""Which pictures a report shows: of all that were asked, of the wrong answers, and of those that changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mar_tools.images import spread_evenly
from mar_tools.reporting.evidence import Evidence
from mar_tools.reporting.kinds import Boxes, Caption, Change, Classes, choose_kind
from mar_tools.verification.kept_answers import Answer

SAMPLES, SAMPLES_WITH_BOXES = 24, 12
MISTAKES, CHANGES = 12, 12


@dataclass(frozen=True)
class Shown:
    """One image, as each side answers it. note: what else is to be said."""

    name: str
    captions: Sequence[Caption]
    note: str = ""


@dataclass(frozen=True)
class Galleries:
    """changed: how many answers the chosen one changed, None where that is not known; near: of them by rounding."""

    samples: Sequence[Shown] = ()
    mistakes: Sequence[Shown] = ()
    mistake_count: int = 0
    changes: Sequence[Shown] = ()
    changed: int | None = None
    near: int = 0


def choose_galleries(evidence: Evidence) -> Galleries:
    reference, main = evidence.reference or evidence.main, evidence.main
    answers = reference.answers
    if not answers:
        return Galleries()
    kind = choose_kind(evidence)
    count = SAMPLES_WITH_BOXES if isinstance(kind, Boxes) else SAMPLES
    chosen = spread_evenly(range(len(answers)), count)
    samples = [show(kind, index, {reference.name: answers[index]}) for index in chosen]
    last = main.answers or answers
    wrong = find_mistakes(kind, last)
    mistakes = [show(kind, index, {main.name: last[index]}) for index in wrong[:MISTAKES]]
    if evidence.reference is None or evidence.chosen is None or not evidence.chosen.answers:
        return Galleries(samples, mistakes, len(wrong))
    changes = find_changes(kind, answers, evidence.chosen.answers) if reference.name != main.name else {}
    shown = [
        show(kind, index, {reference.name: answers[index], main.name: last[index]}, change.note)
        for index, change in list(changes.items())[:CHANGES]
    ]
    near = sum(change.is_near for change in changes.values())
    return Galleries(samples, mistakes, len(wrong), shown, len(changes), near)


def find_mistakes(kind: Classes, answers: Sequence[Answer]) -> list[int]:
    """Return the images that are answered wrong, the worst first."""
    judged = {index: kind.judge(index, answer) for index, answer in enumerate(answers)}
    wrong = [index for index, judgement in judged.items() if judgement.right is False]
    return sorted(wrong, key=lambda index: -judged[index].weight)


def find_changes(kind: Classes, before: Sequence[Answer], after: Sequence[Answer]) -> dict[int, Change]:
    """Return what changed, by image; what rounding alone may decide comes last."""
    compared = {index: kind.compare(index, *sides) for index, sides in enumerate(zip(before, after, strict=True))}
    changed = [(index, change) for index, change in compared.items() if change is not None]
    return dict(sorted(changed, key=lambda entry: entry[1].is_near))


def show(kind: Classes, index: int, answers: Mapping[str, Answer], note: str = "") -> Shown:
    captions = []
    for side, answer in answers.items():
        judgement = kind.judge(index, answer)
        captions.append(replace(kind.caption(index, side, answer), truth=judgement.truth, right=judgement.right))
    return Shown(kind.name(index), captions, note)
