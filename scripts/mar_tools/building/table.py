"""The candidates as people read them."""

from collections.abc import Callable, Mapping, Sequence

from rich.table import Column, Table

from mar_tools.building.candidates import Candidate
from vision_serving.config import Task

ORDER = ("chosen", "verified", "reference", "rejected", "failed", "not tried")
STYLES = {"chosen": "bold green", "rejected": "yellow", "failed": "red", "not tried": "dim"}
# The figures that tell most, of a task's agreement with eager fp32 and of its accuracy.
AGREEMENT: dict[Task, tuple[str, str]] = {
    "classification": ("top1_agreement", "top-1 {:.4g}"),
    "detection": ("matched_boxes", "boxes {:.4g}"),
}
ACCURACY = {"top1": "top-1 {:.4g}", "map": "mAP {:.4g}"}


def candidate_table(rows: Sequence[Candidate], task: Task) -> Table:
    """The chosen one first, then by speed; columns that would be empty are left out."""
    ordered = sorted(rows, key=lambda row: (ORDER.index(row.verdict), -row.rate))
    sizes = sorted({int(size) for row in rows for size in row.images_per_s})
    columns: dict[str, Callable[[Candidate], str]] = {
        "candidate": lambda row: row.name,
        "MB": lambda row: _number(row.size_mb),
        "load s": lambda row: _number(row.load_s),
        **{f"images/s\nbatch {size}": _rate_at(size) for size in sizes},
        "x eager\nfp32": lambda row: "" if row.speedup is None else f"{row.speedup:.2f}",
        "agreement": lambda row: describe_agreement(row.measured, task),
        "accuracy": lambda row: describe_accuracy(row.accuracy),
    }
    cells = {title: [show(row) for row in ordered] for title, show in columns.items()}
    shown = {title: column for title, column in cells.items() if any(column)}
    words = ("candidate", "agreement", "accuracy")
    headers = [Column(title, no_wrap=True, justify="left" if title in words else "right") for title in shown]
    table = Table(*headers, Column("verdict", overflow="fold"))
    for row, *values in zip(ordered, *shown.values(), strict=True):
        table.add_row(*values, f"{row.verdict}: {row.reason}" if row.reason else row.verdict, style=style_of(row))
    return table


def style_of(row: Candidate) -> str | None:
    return STYLES.get(row.verdict)


def describe_agreement(measured: Mapping[str, float], task: Task) -> str:
    """Such as `top-1 1, 38 dB`."""
    name, words = AGREEMENT[task]
    parts = [words.format(measured[name])] if name in measured else []
    parts += [f"{measured['snr_db']:.0f} dB"] if "snr_db" in measured else []
    return ", ".join(parts)


def describe_accuracy(accuracy: Mapping[str, float] | None) -> str:
    return ", ".join(words.format(accuracy[name]) for name, words in ACCURACY.items() if accuracy and name in accuracy)


def _rate_at(batch_size: int) -> Callable[[Candidate], str]:
    return lambda row: _number(row.images_per_s.get(str(batch_size)))


def _number(value: float | None) -> str:
    """Three digits that count: 0.123, 12.3, 1234."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
