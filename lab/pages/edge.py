"""The values of docs/evidence/edge.md."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import Field

from mar_tools.command_line import ROOT
from vision_serving.validation import StrictModel, parse_config, read_json

FORMATS = ("ort", "onnx-web", "executorch", "litert")
PRECISIONS = ("fp32", "int8")
EXAMPLES = {"classifier": ROOT / "examples/digits_classification", "detector": ROOT / "examples/digits_detection"}
TARGETS_DB = {"fp32": 100.0, "int8": 30.0}  # over all pictures
TARGET_IOU = 0.99


class EdgeRow(StrictModel):
    """One export. reason: of a refusal, which has no figures. float_layers: how many int8 left as they were."""

    example: str
    form: str
    precision: str
    runtime: str = ""
    scheme: str = ""
    float_layers: int = 0
    megabytes: float = 0.0
    images: int = 0
    measured: Mapping[str, float] = Field(default={})
    reason: str | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        return self.example, self.form, self.precision

    @property
    def meets_targets(self) -> bool:
        """Return whether the pictures together have the decibels that are asked, and each box its IoU."""
        overlap = min(self.measured.get("answered_iou", 1.0), 1.0)
        return (
            self.reason is None
            and self.measured["overall_snr_db"] >= TARGETS_DB[self.precision]
            and overlap >= TARGET_IOU
        )


class EdgeResults(StrictModel):
    date: str
    machine: str
    rows: tuple[EdgeRow, ...]


def read_results(path: Path) -> EdgeResults:
    """Raises ConfigError."""
    return parse_config(EdgeResults, read_json(path), str(path))


def read_values(path: Path) -> dict[str, Any]:
    results = read_results(path)
    measured = [row for row in results.rows if row.reason is None]
    return {
        "results": results,
        "tables": {example: [row_cells(row) for row in measured if row.example == example] for example in EXAMPLES},
        "measured": measured,
        "missed": [row for row in measured if not row.meets_targets],
        "refused": [row for row in results.rows if row.reason is not None],
        "absent": list_absent(results.rows),
        "runtimes": sorted({row.runtime for row in measured}),
        "overlaps": least_overlaps(measured),
        "targets": {**TARGETS_DB, "iou": TARGET_IOU},
    }


def list_absent(rows: Sequence[EdgeRow]) -> list[str]:
    """Return what has no row, in words."""
    known = {row.key for row in rows}
    return [
        f"the {key[0]} as `{key[1]}` in {key[2]}" for key in product(EXAMPLES, FORMATS, PRECISIONS) if key not in known
    ]


def row_cells(row: EdgeRow) -> list[str]:
    found = row.measured
    agreement = found.get("top1_agreement", found.get("matched_boxes", 1.0))
    cells = [f"`{row.form}`", row.precision, row.scheme, f"{row.megabytes:.1f}", f"{found['overall_snr_db']:.0f}"]
    cells += [f"{found['snr_db']:.0f}", f"{agreement:.1%}"]
    if "iou" in found:
        cells += [f"{found['mean_iou']:.4f}", f"{found.get('answered_iou', found['iou']):.4f}", f"{found['iou']:.4f}"]
    return cells


def least_overlaps(rows: Sequence[EdgeRow]) -> dict[str, float]:
    """Return the least IoU at a box's place of all formats, for each precision."""
    found = {
        precision: [
            row.measured["answered_iou"] for row in rows if row.precision == precision and "iou" in row.measured
        ]
        for precision in PRECISIONS
    }
    return {precision: min(values) for precision, values in found.items() if values}
