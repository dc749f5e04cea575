"""The template filled with what there is to tell."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mar_tools.building.candidates import Candidate
from mar_tools.building.table import (
    ACCURACY,
    AGREEMENT,
    ORDER,
    describe_alternatives,
    describe_baseline,
    describe_preprocessing,
)
from mar_tools.images import show_line
from mar_tools.measures import judge_measure, name_measure
from mar_tools.reporting.evidence import Evidence
from mar_tools.reporting.galleries import choose_galleries
from mar_tools.reporting.plots import plot_curves, plot_speed_and_accuracy

FOLDER = Path(__file__).resolve().parent
SHOWN_FIRST = 20  # classes and confusions; the rest is folded
MATRIX_CLASSES = 20  # of more, a matrix is not readable


@dataclass(frozen=True)
class Fact:
    """A figure at the top of the page."""

    title: str
    value: str
    note: str = ""


def write_report(evidence: Evidence, path: Path) -> Path:
    """Write the page, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_bytes(render_report(evidence).encode("utf-8", "replace"))
    return unfinished.replace(path)


def open_templates(folder: Path) -> Environment:
    """Return the templates of HTML pages in a folder. What is filled in is text, and never markup."""
    environment = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["line"] = show_line
    return environment


def render_report(evidence: Evidence) -> str:
    environment = open_templates(FOLDER)
    tried = [row for row in evidence.rows if row.verdict != "not tried"]
    environment.filters["figure"] = show_figure
    return environment.get_template("report.html.j2").render(
        evidence=evidence,
        css=Markup((FOLDER / "report.css").read_text(encoding="utf-8")),  # ours, and no foreign text in it
        written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        facts=list_facts(evidence),
        preprocessing=describe_preprocessing(evidence.config.preprocessing),
        galleries=choose_galleries(evidence),
        scatter=plot_speed_and_accuracy(evidence),
        rows=sorted(tried, key=lambda row: (ORDER.index(row.verdict), -row.rate)),
        failures=() if evidence.chosen else evidence.main.report.get("failures", ()),
        left_out=group_untried(evidence.rows),
        explain=lambda row: explain_row(row, evidence.rows),
        headings={**AGREEMENT, **ACCURACY},
        proof=list_proof(evidence),
        classes=list_classes(evidence),
        matrix=fill_matrix(evidence),
        confusions=evidence.main.by_class.confusions if evidence.main.by_class else (),
        assumed=list_assumed(evidence),
        alternatives=[*describe_baseline(evidence.main.report), *describe_alternatives(evidence.main.report)],
        measured_with=list_conditions(evidence),
        curves=plot_curves(evidence),
        first=SHOWN_FIRST,
    )


def list_facts(evidence: Evidence) -> list[Fact]:
    """List what somebody wants to know first."""
    chosen, report = evidence.chosen, evidence.main.report
    row = next((row for row in evidence.rows if row.verdict == "chosen"), None)
    facts = [Fact("Chosen", chosen.name if chosen else "none", "" if chosen else "no candidate passed")]
    if row is not None and row.images_per_s:
        note = f"{row.speedup:.3g} times eager fp32" if row.speedup else ""
        facts.append(Fact(f"Images per second, batch {max(map(int, row.images_per_s))}", show_figure(row.rate), note))
    if name := evidence.measure:
        accuracy = report["accuracy"]
        before = f"eager fp32: {accuracy['reference'][name]:.3f}" if "reference" in accuracy else evidence.images
        facts.append(Fact(" ".join(ACCURACY[name].split()), f"{accuracy['candidate'][name]:.3f}", before))
    if baseline := report.get("baseline"):
        value = baseline.get("accuracy", baseline.get("map"))
        facts.append(Fact("Before compression", f"{value:.3f}", baseline["name"]))
    if name := evidence.agreement:
        title = f"{' '.join(AGREEMENT[name].split())} as eager fp32"
        facts.append(Fact(title, f"{report['measured'][name]:.1%}", _name_images(report)))
    if row is not None and row.size_mb is not None:
        facts.append(Fact("Artifact", f"{show_figure(row.size_mb)} MB", f"loads in {show_figure(row.load_s)} s"))
    return facts


def _name_images(report: Any) -> str:
    images = report.get("images") or {}
    return f"{images['count']} images, {images['source']}" if images else ""


def show_figure(value: float | None) -> str:
    """Return three digits that count: 0.123, 12.3, 1234."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def group_untried(rows: Sequence[Candidate]) -> dict[str, list[str]]:
    """Group the names of candidates that were not tried by the reason."""
    left_out = [row for row in rows if row.verdict == "not tried"]
    reasons = dict.fromkeys(row.reason for row in left_out)
    return {reason: [row.name for row in left_out if row.reason == reason] for reason in reasons}


def explain_row(row: Candidate, rows: Sequence[Candidate]) -> str:
    """Say why a candidate was not chosen."""
    if row.reason or row.verdict == "chosen":
        return row.reason or "the fastest that passed"
    if row.verdict == "reference":
        return "only timed to compare with; another backend or precision was asked for"
    chosen = next((each for each in rows if each.verdict == "chosen"), None)
    if chosen is None or not chosen.rate or not row.rate:
        return ""
    return f"passed; {row.rate / chosen.rate:.0%} of the chosen one's speed"


@dataclass(frozen=True)
class Proof:
    """A measure of the chosen export with its bound."""

    name: str
    value: str
    bound: str
    met: bool | None


def list_proof(evidence: Evidence) -> list[Proof]:
    report = evidence.main.report
    proofs = []
    for name, value in report.get("measured", {}).items():
        shown = "none" if value is None else f"{value:.4g}"
        proofs.append(Proof(name_measure(name), shown, *judge_measure(name, value, report.get("bounds", {}))))
    return proofs


def list_assumed(evidence: Evidence) -> list[str]:
    """List what was assumed of the model, and what is odd about the reference's answers."""
    report = evidence.main.report
    odd = report.get("reading", {}).get("warnings", ())
    return [*map(str, report.get("assumed", ())), *map(str, odd)]


def list_conditions(evidence: Evidence) -> dict[str, str]:
    """List what the figures depend on: weights, images, machine and versions."""
    report = evidence.main.report
    machine = report.get("machine", {})
    return {
        "weights": str(report.get("weights", "")),
        "images": _name_images(report),
        "machine": f"{machine.get('cpu', '')}, {machine.get('cores', '')} cores",
        **{str(name): str(version) for name, version in report.get("versions", {}).items()},
        "artifact, SHA-256": str(report.get("artifact_sha256", "")),
    }


@dataclass(frozen=True)
class ClassRow:
    """Of one class; `before`: of eager fp32, None where it is not known."""

    label: str
    count: int
    share: float
    before: float | None
    share_50: float | None


def list_classes(evidence: Evidence) -> list[ClassRow]:
    main = evidence.main.by_class
    reference = evidence.reference.by_class if evidence.reference else None
    if main is None:
        return []
    before = {each.class_id: each.share for each in reference.classes} if reference else {}
    return [
        ClassRow(evidence.label(each.class_id), each.count, each.share, before.get(each.class_id), each.share_50)
        for each in main.classes
    ]


@dataclass(frozen=True)
class Matrix:
    """rows: of the truth. Each cell: how many, and its share of the row from 0 to 10, by which it is coloured."""

    labels: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[int, int]]]]


def fill_matrix(evidence: Evidence) -> Matrix | None:
    """Fill the matrix of confusions; None where there are too many classes, or none excludes the others."""
    main = evidence.main.by_class
    if main is None or main.curve:
        return None
    counts = {each.class_id: each.count for each in main.classes}
    cells = {(each.class_id, each.answered): each.count for each in main.confusions}
    cells |= {(each.class_id, each.class_id): round(each.count * each.share) for each in main.classes}
    class_ids = sorted({class_id for pair in cells for class_id in pair})
    if not 1 < len(class_ids) <= MATRIX_CLASSES:
        return None
    rows = [
        (
            evidence.label(row),
            [(count := cells.get((row, column), 0), round(10 * count / counts[row])) for column in class_ids],
        )
        for row in class_ids
        if row in counts
    ]
    return Matrix([evidence.label(class_id) for class_id in class_ids], rows)
