"""What a report tells of: the values, before anything is chosen or drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mar_tools.building.candidates import Candidate
from mar_tools.building.table import AGREEMENT
from mar_tools.reporting.by_class import ByClass
from mar_tools.verification.accuracy import find_primary
from mar_tools.verification.kept_answers import Answer
from mar_tools.verification.labelled import Truth
from vision_serving.config import HandlerConfig


@dataclass(frozen=True)
class Side:
    """One export: its verification.json, and its answers to `Evidence.paths` where they are known."""

    name: str
    report: Mapping[str, Any]
    answers: Sequence[Answer] | None = None
    by_class: ByClass | None = None


@dataclass(frozen=True)
class Evidence:
    """Of a build or an archive.

    chosen: None where no candidate passed. reference: None in an archive. images: what `paths` are, where they are
    others than those of the verification.
    """

    name: str
    version: str
    config: HandlerConfig
    labels: Sequence[str]
    rows: Sequence[Candidate]
    reference: Side | None
    chosen: Side | None
    paths: Sequence[Path] = ()
    truth: Sequence[Truth] | None = None
    images: str = ""

    @property
    def main(self) -> Side:
        """Return the side that the report is mostly of."""
        side = self.chosen or self.reference
        assert side is not None
        return side

    @property
    def measure(self) -> str | None:
        """Return the name of the accuracy that tells most; None where nothing is known of the images."""
        accuracy = self.main.report.get("accuracy")
        return find_primary(accuracy["candidate"]) if accuracy else None

    @property
    def agreement(self) -> str | None:
        """Return the name of the agreement that tells most; None where nothing was compared."""
        return next((name for name in AGREEMENT if name in self.main.report.get("measured", ())), None)

    def label(self, class_id: int) -> str:
        known = self.labels[class_id] if 0 <= class_id < len(self.labels) else ""
        return known or self._folders.get(class_id, f"class {class_id}")

    @cached_property
    def _folders(self) -> dict[int, str]:
        """Return what the folders of classes are called; a model of embeddings has no labels."""
        known = zip(self.paths, self.truth or (), strict=False)
        return {int(each): path.parent.name for path, image in known for each in image.get("class_ids", ())}
