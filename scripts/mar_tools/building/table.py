"""The candidates as people read them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Column
from rich.text import Text

from mar_tools.building.candidates import Candidate
from mar_tools.measures import name_measure
from mar_tools.terminal import new_table, number_column
from mar_tools.verification.accuracy import PRIMARY, find_primary
from vision_serving.config import PreprocessingConfig

ORDER = ("chosen", "verified", "reference", "rejected", "failed", "not tried")
STYLES = {"chosen": "bold green", "rejected": "yellow", "failed": "red", "not tried": "dim"}
# The figures that tell most -> their headings: of the agreement, of which a model has one, and of the accuracy.
AGREEMENT = {
    "top1_agreement": "same\ntop-1",
    "matched_labels": "same\nlabels",
    "matched_boxes": "same\nboxes",
    "cosine": "least\ncosine",
}
ACCURACY = {"top1": "top-1\ntrue", "map": "\nmAP", "nearest1": "nearest\ntrue"}

Show = Callable[[Candidate], float | None]


def candidate_table(rows: Sequence[Candidate]) -> Group:
    """Return the chosen one first, then by speed; below why others were rejected, failed or were not tried."""
    tried = [row for row in rows if row.verdict != "not tried"]
    ordered = sorted(tried, key=lambda row: (ORDER.index(row.verdict), -row.rate))
    columns = {title: [_number(show(row)) for row in ordered] for title, show in figures(rows).items()}
    shown = {title: cells for title, cells in columns.items() if any(cells)}
    candidate, verdict = (Column(f"\n{heading}", no_wrap=True) for heading in ("candidate", "verdict"))
    table = new_table(candidate, *map(number_column, shown), verdict, gap=1)
    for index, row in enumerate(ordered):
        figures_of_row = (cells[index] for cells in shown.values())
        table.add_row(row.name, *figures_of_row, row.verdict, style=STYLES.get(row.verdict))
    reasons = [
        Text(f"{row.name} {row.verdict}: {row.reason}", style=STYLES.get(row.verdict, ""))
        for row in ordered
        if row.reason
    ]
    left_out = [row for row in rows if row.verdict == "not tried"]
    for reason in dict.fromkeys(row.reason for row in left_out):
        names = ", ".join(row.name for row in left_out if row.reason == reason)
        reasons.append(Text(f"not tried: {names}, as {reason}", style=STYLES["not tried"]))
    return Group(table, *reasons)


def describe_preprocessing(config: PreprocessingConfig) -> str:
    """Describe preprocessing in a line: what the model gets to see is the commonest mistake, and `auto` chose it."""
    parts = ["gray"] if config.channels == 1 else []
    parts += [f"{config.resize.mode} {config.resize.size}", config.interpolation]
    if config.crop is not None:
        parts.append(f"crop {config.crop}")
    if config.color_order != "rgb":
        parts.append(config.color_order)
    return f"preprocessing: {', '.join(parts)}, mean {config.mean}, std {config.std}"


def describe_reference(report: Mapping[str, Any]) -> list[str]:
    """Return what the reference's verification says of it: first how good it is, then what is odd or assumed."""
    images = report["images"]["count"]
    if report["accuracy"] is None:
        lines = [f"reference: its accuracy is not known; label the {images} pictures that it was verified on"]
    else:
        name = find_primary(report["accuracy"]["reference"])
        floor = report["bounds"].get(f"min_{PRIMARY[name]}")
        asked = "" if floor is None else f", at least {floor:g} asked"
        share = report["accuracy"]["reference"][name]
        lines = [f"reference: {name_measure(name)} {share:.4g} on {images} labelled pictures{asked}"]
    lines += [*describe_baseline(report), *describe_alternatives(report)]
    lines += [f"WARNING: {warning}" for warning in report["reading"]["warnings"]]
    return lines + [f"ASSUMED: {assumed}" for assumed in report["assumed"]]


def describe_baseline(report: Mapping[str, Any]) -> list[str]:
    """Return a line about what a compressed network was before, none for another network."""
    baseline = report.get("baseline")
    if not baseline:
        return []
    name = next(measure for measure in ("accuracy", "map") if measure in baseline)
    pictures = f" on {baseline['pictures']} pictures" if "pictures" in baseline else ""
    steps = f" ({baseline['steps']})" if "steps" in baseline else ""
    return [f"before compression{steps}: {name_measure(name)} {baseline[name]:.4g} of {baseline['name']}{pictures}"]


def describe_alternatives(report: Mapping[str, Any]) -> list[str]:
    """Return a line about the preprocessings that were tried, none where that was not possible."""
    own, *others = report.get("alternatives") or [None]
    if not others:
        return []
    name = find_primary(own["accuracy"])
    tried = ", ".join(f"{each['name']} {each['accuracy'][name]:.3g}" for each in others)
    before = f"{name_measure(name)} {own['accuracy'][name]:.3g} on {own['images']} pictures with the recipe's own"
    return [f"other preprocessings: {before}; {tried}"]


def describe_slow_choice(rows: Sequence[Candidate]) -> str | None:
    """Return a line where nothing but PyTorch's eager mode is left of a build that tried more, None elsewhere."""
    others = [row for row in rows if row.backend != "eager"]
    passed = [row for row in rows if row.verdict in ("chosen", "verified")]
    if not others or not passed or any(row.backend != "eager" for row in passed):
        return None
    untried = sum(row.verdict == "not tried" for row in others)
    advice = "; --budget-min gives it more time" if untried else ""
    return (
        f"WARNING: only eager PyTorch is left, the slowest way to serve a model: of {len(others)} other candidates "
        f"{len(others) - untried} failed or were rejected and {untried} were not tried{advice}"
    )


def figures(rows: Sequence[Candidate]) -> dict[str, Show]:
    """Return the columns with numbers: heading -> what stands there."""
    sizes = sorted({int(size) for row in rows for size in row.images_per_s})
    return {
        "\nMB": lambda row: row.size_mb,
        "load\ns": lambda row: row.load_s,
        **{f"images/s\nbatch {size}": _rate_at(size) for size in sizes},
        "times\neager": lambda row: row.speedup,
        **{AGREEMENT[name]: _measured(name) for name in AGREEMENT if any(name in row.measured for row in rows)},
        "SNR\ndB": _measured("snr_db"),
        **{ACCURACY[name]: _accuracy(name) for row in rows if row.accuracy and (name := find_primary(row.accuracy))},
    }


def _measured(name: str) -> Show:
    return lambda row: row.measured.get(name)


def _accuracy(name: str) -> Show:
    return lambda row: (row.accuracy or {}).get(name)


def _rate_at(batch_size: int) -> Show:
    return lambda row: row.images_per_s.get(str(batch_size))


def _number(value: float | None) -> str:
    """Return three digits that count: 0.123, 12.3, 1234."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
