"""Which results are worth having: those that no other beats in accuracy, speed and size at once."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
from rich.console import Group
from rich.text import Text

from mar_tools.building.candidates import Candidate
from mar_tools.terminal import Table, name_column, new_table, number_column
from mar_tools.training.whole_files import write_whole
from mar_tools.verification.accuracy import find_primary
from vision_serving.validation import read_json


@dataclass(frozen=True)
class Point:
    """One result as it was built.

    rows: its exports, by folder. problem: why there are none. eager_accuracy: of the trained network itself. shown: the
    folder of the export that stands for it. times: its speed over that of the original's int8. seconds: that it took.
    """

    name: str
    recipe: str
    rows: Mapping[str, Candidate] = field(default_factory=dict)
    problem: str = ""
    eager_accuracy: float | None = None
    seconds: float = 0.0
    shown: str = ""
    times: float | None = None
    is_within: bool = False
    is_on_front: bool = False
    is_chosen: bool = False

    @property
    def row(self) -> Candidate | None:
        """Return the export that stands for it."""
        return self.rows.get(self.shown)

    @property
    def accuracy(self) -> float:
        row = self.row
        return accuracy_of(row) if row is not None else 0.0

    def as_row(self) -> dict[str, Any]:
        """Return what there is to tell of it."""
        row = self.row
        told: dict[str, Any] = {"name": self.name, "recipe": self.recipe, "problem": self.problem}
        if row is None:
            reasons = [f"{each.name}: {each.reason}" for each in self.rows.values() if each.reason]
            return {**told, "problem": self.problem or "; ".join(reasons)}
        return {
            **told,
            "candidate": row.name,
            "accuracy": self.accuracy,
            "eager_accuracy": self.eager_accuracy,
            "images_per_s": dict(row.images_per_s),
            "times_int8": self.times,
            "size_mb": row.size_mb,
            "is_within": self.is_within,
            "is_on_front": self.is_on_front,
            "is_chosen": self.is_chosen,
        }

    def write(self, path: Path) -> None:
        write_whole(path, orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2))

    @classmethod
    def read(cls, path: Path) -> "Point":
        values = read_json(path)
        return cls(**{**values, "rows": {key: Candidate(**row) for key, row in values["rows"].items()}})


def accuracy_of(row: Candidate) -> float:
    """Return its own accuracy on the held-out pictures."""
    accuracy = row.accuracy or {}
    return accuracy[find_primary(accuracy)] if accuracy else 0.0


def find_int8(original: Point) -> str | None:
    """Return the folder of the fastest int8 export of the original; of any other where none passed."""
    passed = {folder: row for folder, row in original.rows.items() if row.verdict == "verified"}
    wanted = {folder: row for folder, row in passed.items() if row.precision == "int8"} or passed
    return max(wanted, key=lambda folder: wanted[folder].rate, default=None)


def mark_front(points: Sequence[Point], baseline_accuracy: float, max_drop: float) -> list[Point]:
    """Choose the export that stands for each point; mark which are beaten by none, and the fastest of those allowed.

    points: the first is the original.
    """
    least = baseline_accuracy - max_drop - 1e-9
    int8 = find_int8(points[0])
    rate = points[0].rows[int8].rate if int8 else 0.0
    shown = []
    for number, point in enumerate(points):
        passed = {folder: row for folder, row in point.rows.items() if row.verdict == "verified"}
        allowed = {folder: row for folder, row in passed.items() if accuracy_of(row) >= least} or passed
        best = max(allowed, key=lambda folder: allowed[folder].rate, default="")
        best = (int8 or best) if number == 0 else best
        row = point.rows.get(best)
        times = round(row.rate / rate, 3) if row is not None and rate else None
        within = row is not None and accuracy_of(row) >= least
        shown.append(replace(point, shown=best, times=times, is_within=within))
    timed = [point for point in shown if point.row is not None]
    front = {point.name for point in timed if not any(beats(other, point) for other in timed)}
    fastest = max((point for point in timed if point.is_within), key=lambda point: point.times or 0.0, default=None)
    return [
        replace(point, is_on_front=point.name in front, is_chosen=fastest is not None and point.name == fastest.name)
        for point in shown
    ]


def beats(other: Point, point: Point) -> bool:
    """Return whether one is as good as another in all of accuracy, speed and size, and better in some."""
    pairs = [
        (other.accuracy, point.accuracy),
        (other.times or 0.0, point.times or 0.0),
        (-(_size(other)), -(_size(point))),
    ]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def _size(point: Point) -> float:
    return (point.row.size_mb or 0.0) if point.row is not None else 0.0


def front_table(found: Mapping[str, Any]) -> Group:
    """Return the points, the fastest first, and what was not possible below."""
    rows = sorted((row for row in found["points"] if "candidate" in row), key=lambda row: -(row["times_int8"] or 0.0))
    batch = max((int(size) for row in rows for size in row["images_per_s"]), default=1)
    table: Table = new_table(
        name_column("\n\nresult"),
        name_column("\n\nbuilt as"),
        number_column("\n\naccuracy"),
        number_column(f"\nimages/s\nbatch {batch}"),
        number_column("times\noriginal\nint8"),
        number_column("\n\nMB"),
        "",
        gap=1,
    )
    for row in rows:
        note = "chosen" if row["is_chosen"] else "front" if row["is_on_front"] and row["is_within"] else ""
        note = note or ("" if row["is_within"] else "loses too much")
        table.add_row(
            row["name"],
            row["candidate"],
            f"{row['accuracy']:.4f}",
            f"{row['images_per_s'].get(str(batch), 0):.0f}",
            f"{row['times_int8'] or 0:.2f}",
            f"{row['size_mb']:.3g}",
            note,
            style="bold green" if row["is_chosen"] else "" if row["is_within"] else "dim",
        )
    lines = [Text(f"before compression: accuracy {found['baseline_accuracy']:.4f}")]
    lines += [
        Text(f"{row['name']}: {row['problem']}", style="yellow") for row in found["points"] if "candidate" not in row
    ]
    if found["chosen"] is None:
        lines.append(Text("none lost as little as is allowed"))
    elif found["chosen"]["times_int8"] <= 1:
        lines.append(Text("none that lost as little as is allowed is faster than the original"))
    if found["hopeless"]:
        lines.append(Text(f"not tried, as less lost too much: {'; '.join(found['hopeless'])}"))
    if found["untried"]:
        lines.append(
            Text(f"not tried, as the budget of {found['budget_min']:g} min was used up: {'; '.join(found['untried'])}")
        )
    return Group(table, *lines)
