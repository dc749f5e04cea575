"""What became of each candidate: the rows of the table, of candidates.json, and of the proof in the archive."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mar_tools.verification.gate import extend_report
from vision_serving.config import DeviceType, Precision

# reference: eager fp32, timed to compare with, where the recipe leaves it no chance to be chosen.
CandidateVerdict = Literal["chosen", "verified", "rejected", "failed", "not tried", "reference"]


@dataclass(frozen=True)
class Candidate:
    """One backend and precision on one device.

    reason        why it was rejected, failed or was not tried
    build_s       seconds of its export and verification
    size_mb       of the artifact; load_s: seconds from its files to a handler that is ready
    images_per_s  encoded images to JSON in process, by batch size; speedup: over eager fp32, at the largest batch
    measured      its agreement with eager fp32 on the CPU; accuracy: its own, where the truth is known
    """

    backend: str
    precision: Precision
    device: DeviceType
    verdict: CandidateVerdict
    reason: str = ""
    build_s: float | None = None
    size_mb: float | None = None
    load_s: float | None = None
    images_per_s: Mapping[str, float] = field(default_factory=dict)
    speedup: float | None = None
    measured: Mapping[str, float] = field(default_factory=dict)
    accuracy: Mapping[str, float] | None = None
    quantization: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.backend} {self.precision}"

    @property
    def rate(self) -> float:
        """Return images per second at the largest batch, 0 where it was not timed."""
        return self.images_per_s[max(self.images_per_s, key=int)] if self.images_per_s else 0.0


def mark_fastest(rows: Sequence[Candidate]) -> list[Candidate]:
    """Return the same rows, the fastest of those that passed marked as chosen."""
    passed = [row for row in rows if row.verdict == "verified"]
    # Groups are timed one after the other: the factor over the eager fp32 of the same group is the fairer measure.
    by_speedup = all(row.speedup is not None for row in passed)
    fastest = max(passed, key=lambda row: (row.speedup or 0.0) if by_speedup else row.rate, default=None)
    return [replace(row, verdict="chosen") if row is fastest else row for row in rows]


def find_chosen(rows: Sequence[Candidate]) -> Candidate | None:
    return next((row for row in rows if row.verdict == "chosen"), None)


def record_candidates(rows: Sequence[Candidate], export: Path, reference: Mapping[str, Any]) -> None:
    """Record them in the `verification.json` of an export, so that its archive says what it was chosen from.

    reference: the reference's report, which says what else was tried to read the model right.
    """
    extend_report(export, {"alternatives": reference["alternatives"], "candidates": rows})
