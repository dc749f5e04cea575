"""The values of docs/evidence/compatibility.md."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.pages.formatting import round_down_percent
from lab.sweeping.coverage import PRECISIONS, Coverage, CoverageRow, read_coverage
from lab.sweeping.plan import list_passes, offered_precisions, why_not_offered
from lab.sweeping.zoo import CALIBRATION_IMAGES, GROUPS, TIMM_MODELS, VERIFICATION_IMAGES, Group
from mar_tools.exporting.export_folders import REFERENCE
from mar_tools.exporting.exporters import BackendAndPrecision
from mar_tools.verification.bounds import RANDOM_BOUNDS

GROUP_TITLES: dict[Group, str] = {
    "classification": "torchvision classifiers",
    "timm": "timm classifiers",
    "detection": "torchvision detectors",
}


def read_values(path: Path) -> dict[str, Any]:
    coverage = read_coverage(path)
    swept = {row.backend for row in coverage.rows}
    notes: dict[str, int] = {}
    tables = {GROUP_TITLES[group]: make_table(group, coverage, notes) for group in GROUPS}
    return {
        "coverage": coverage,
        "counts": Counter(row.status for row in coverage.rows),
        "titles": list(GROUP_TITLES.values()),
        "summary": count_verified(coverage),
        "not_offered": list_not_offered(coverage),
        "not_swept": [backend for backends in list_passes() for backend in backends if backend not in swept],
        "tables": tables,
        "notes": notes,
        "not_verified": list_not_verified(coverage, notes),
        "bounds": {precision: RANDOM_BOUNDS[precision] for precision in PRECISIONS},
        "timm_models": len(TIMM_MODELS),
        "images": VERIFICATION_IMAGES,
        "calibration_images": CALIBRATION_IMAGES,
    }


def count_verified(coverage: Coverage) -> list[tuple[str, str, list[str]]]:
    """Return the verified share of each group, for each backend and precision that is offered."""
    return [
        (backend, precision, [_share(group, (backend, precision), coverage.rows) for group in GROUP_TITLES])
        for backend in _list_backends(coverage)
        for precision in offered_precisions(backend)
    ]


def list_not_offered(coverage: Coverage) -> dict[BackendAndPrecision, str]:
    """Return why a backend lacks a precision."""
    pairs = [(backend, precision) for backend in _list_backends(coverage) for precision in PRECISIONS]
    return {pair: why_not_offered(*pair) for pair in pairs if pair[1] not in offered_precisions(pair[0])}


def list_not_verified(coverage: Coverage, notes: dict[str, int]) -> dict[str, list[str]]:
    """Return, for each model that falls short somewhere, where and how."""
    found: dict[str, list[str]] = {}
    for row in coverage.rows:
        if row.status != "verified":
            found.setdefault(row.model, []).append(f"{row.backend} {row.precision}: {make_cell(row, notes)}")
    return found


def make_table(group: Group, coverage: Coverage, notes: dict[str, int]) -> list[list[str]]:
    """Return the heading, then one line a model. Reasons that come up are added to `notes` with the next number."""
    rows = {row.key: row for row in coverage.rows if row.group == group}
    columns = [
        (backend, precision)
        for backend in _list_backends(coverage)
        for precision in offered_precisions(backend)
        if any((row.backend, row.precision) == (backend, precision) for row in rows.values())
    ]
    lines = [["model", *(" ".join(column) for column in columns)]]
    for model in dict.fromkeys(row.model for row in rows.values()):
        found = [rows.get((group, model, *column)) for column in columns]
        lines.append([model, *("" if row is None else make_cell(row, notes) for row in found)])
    return lines


def make_cell(row: CoverageRow, notes: dict[str, int]) -> str:
    measured = [] if row.snr_db is None else [f"{row.snr_db:.0f} dB"]
    if row.matched_boxes is not None:
        measured.append(round_down_percent(row.matched_boxes))
    if row.status == "verified":
        told = ["reference"] if f"{row.backend}-{row.precision}" == REFERENCE else measured
        return " · ".join([*told, *([] if row.ms is None else [f"{row.ms:.{0 if row.ms >= 10 else 1}f} ms"])])
    if row.status == "rejected":
        return f"rejected {' · '.join(measured)}"
    reason = (row.reason or "no reason given") if row.status == "not supported" else f"{row.status}: {row.reason}"
    return f"- ({notes.setdefault(reason, len(notes) + 1)})"


def _list_backends(coverage: Coverage) -> list[str]:
    """Return the backends that have rows, in the order of the passes."""
    swept = {row.backend for row in coverage.rows}
    return [backend for backends in list_passes() for backend in backends if backend in swept]


def _share(group: Group, column: BackendAndPrecision, rows: Sequence[CoverageRow]) -> str:
    tried = [row for row in rows if (row.group, row.backend, row.precision) == (group, *column)]
    verified = sum(row.status == "verified" for row in tried)
    return f"{verified} of {len(tried)} ({round_down_percent(verified / len(tried))})" if tried else "not tried"
