"""The pictures worth a look, of all rows of a result; only these are kept in memory."""

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mar_tools.predicting.rows import OK, Answer, Row
from mar_tools.reviewing.doubts import find_difference, find_doubt
from mar_tools.reviewing.results import read_result
from vision_serving.errors import ConfigError

ERRORS_NAMED = 5  # of each kind
Kind = tuple[int, str]  # of an error: its status and its type


@dataclass(frozen=True)
class Doubtful:
    """A picture to look at. value: from 0 to 1, the larger the more doubtful. other: the second result's answer."""

    path: str
    value: float
    why: str
    answer: Answer
    other: Answer | None = None


@dataclass
class Review:
    """What was found in all rows. empty: pictures in which a detector found nothing. alone: that one result has."""

    rows: int = 0
    unsure: list[Doubtful] = field(default_factory=list)
    differing: list[Doubtful] = field(default_factory=list)
    differing_count: int = 0
    alone: int = 0
    empty: int = 0
    errors: Counter[Kind] = field(default_factory=Counter)
    failed: dict[Kind, list[tuple[str, str]]] = field(default_factory=dict)  # the first of each: path, message


class _Most:
    """Keeps the most doubtful of many, the first of equal ones."""

    def __init__(self, count: int) -> None:
        self._count, self._heap, self._seen = count, list[tuple[float, int, Doubtful]](), 0

    def add(self, doubtful: Doubtful) -> None:
        self._seen += 1
        entry = (doubtful.value, -self._seen, doubtful)
        (heapq.heappush if len(self._heap) < self._count else heapq.heappushpop)(self._heap, entry)

    def best_first(self) -> list[Doubtful]:
        return [doubtful for _, _, doubtful in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]


def review(result: Path, other: Path | None, count: int) -> Review:
    """Look for the `count` least sure pictures, and as many that two results differ in. Raises ConfigError."""
    second = None if other is None else _read_answers(other)
    found, unsure, differing = Review(), _Most(count), _Most(count)
    for row in read_result(result):
        found.rows += 1
        if row["status"] != OK:
            _note_error(found, row)
            continue
        answer, path = row["answer"], row["path"]
        found.empty += answer.get("detections") == []
        doubt = find_doubt(answer)
        if doubt is not None:
            unsure.add(Doubtful(path, *doubt, answer))
        if second is None:
            continue
        against = second.pop(path, None)
        difference = None if against is None else find_difference(answer, against)
        found.alone += against is None
        if difference is not None:
            found.differing_count += 1
            differing.add(Doubtful(path, *difference, answer, against))
    if not found.rows:
        raise ConfigError(f"{result}: no rows in it")
    found.unsure, found.differing = unsure.best_first(), differing.best_first()
    return found


def _read_answers(result: Path) -> dict[str, Answer]:
    return {row["path"]: row["answer"] for row in read_result(result) if row["status"] == OK}


def _note_error(found: Review, row: Row) -> None:
    kind = (row["status"], row["error"]["type"])
    found.errors[kind] += 1
    named = found.failed.setdefault(kind, [])
    if len(named) < ERRORS_NAMED:
        named.append((row["path"], row["error"]["message"]))


def list_doubtful(found: Review) -> Iterator[Mapping[str, str]]:
    """Yield the lines of the list to label: each picture once, those that differ first."""
    seen: set[str] = set()
    for why, group in (("differs", found.differing), ("unsure", found.unsure)):
        for doubtful in group:
            if doubtful.path not in seen:
                seen.add(doubtful.path)
                yield {"path": doubtful.path, "why": why, "doubt": f"{doubtful.value:.4f}", "what": doubtful.why}
