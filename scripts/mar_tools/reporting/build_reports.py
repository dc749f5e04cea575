"""What a build leaves in exports/<name> becomes report.html. No report, whatever the reason, never ends a build."""

import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mar_tools.building.build import folder_of
from mar_tools.building.candidates import Candidate, find_chosen
from mar_tools.exporting.export_folders import REFERENCE, read_manifest
from mar_tools.models.recipes import Recipe
from mar_tools.reporting.by_class import measure_by_class
from mar_tools.reporting.evidence import Evidence, Side
from mar_tools.reporting.page import write_report
from mar_tools.verification.gate import extend_report, read_report
from mar_tools.verification.kept_answers import find_answers
from mar_tools.verification.labelled import VerificationImages, read_verification_images
from vision_serving.config import read_handler_config
from vision_serving.labels import read_labels

REPORT = "report.html"


def report_build(recipe: Recipe, exports: Path, rows: Sequence[Candidate]) -> Path | None:
    """Write exports/<name>/report.html, and the figures by class into the chosen export's verification.json.

    Returns None, after a warning, where it cannot be written.
    """
    folder = exports / recipe.name
    try:
        evidence = gather_evidence(recipe, exports, rows)
        return write_report(evidence, folder / REPORT)
    except Exception as error:  # a picture to look at is not worth the build
        with suppress(OSError):  # a full disk may well be the reason
            (folder / "report.log").write_text(traceback.format_exc(), encoding="utf-8")
        reason = " ".join(str(error).split()) or type(error).__name__
        print(f"warning: {recipe.name}: no report of this build: {reason}", file=sys.stderr)
        return None


def report_refused(recipe: Recipe, exports: Path, began: float) -> Path | None:
    """Write the report of a build that ended with its reference, whose answers may show why; None without answers.

    began: seconds since 1970; what is older is of another build.
    """
    proof = exports / recipe.name / REFERENCE / "verification.json"
    if not proof.is_file() or proof.stat().st_mtime < began:
        return None
    return report_build(recipe, exports, ())


def gather_evidence(recipe: Recipe, exports: Path, rows: Sequence[Candidate]) -> Evidence:
    reference_folder, chosen = exports / recipe.name / REFERENCE, find_chosen(rows)
    config = read_handler_config(reference_folder / "model-config.yaml")
    labels = read_labels(reference_folder / config.labels)
    images = read_verification_images(read_manifest(reference_folder).verification, config, labels)
    reference = read_side("eager fp32", reference_folder, images)
    side = None
    if chosen is not None:
        chosen_folder = folder_of(chosen, recipe, exports)
        side = reference if chosen_folder.name == REFERENCE else read_side(chosen.name, chosen_folder, images)
        if side.by_class is not None:
            record_by_class(side, chosen_folder)
    return Evidence(recipe.name, recipe.version, config, labels, rows, reference, side, images.paths, images.truth)


def read_side(name: str, folder: Path, images: VerificationImages) -> Side:
    report = read_report(folder)
    answers = find_answers(folder, report["artifact_sha256"], images.paths)
    if answers is None or images.truth is None:
        return Side(name, report, answers)
    return Side(name, report, answers, measure_by_class(answers, images.truth))


def record_by_class(side: Side, export: Path) -> None:
    """Record it in the `verification.json` of an export, for the report of its archive."""
    assert side.by_class is not None
    extend_report(export, {"by_class": side.by_class.model_dump(mode="json", exclude_none=True)})
