"""The report of an archive: from what it carries, which is one picture, or from its answers to a user's own images."""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import torch
from pydantic import TypeAdapter, ValidationError

from mar_tools.archives.archive import extract_archive
from mar_tools.archives.golden_prediction import GOLDEN, PICTURE, Golden
from mar_tools.building.candidates import Candidate
from mar_tools.models.recipes import VerificationRecipe, check_truth
from mar_tools.reporting.by_class import ByClass, measure_by_class
from mar_tools.reporting.evidence import Evidence, Side
from mar_tools.reporting.page import write_report
from mar_tools.verification.accuracy import measure_accuracy
from mar_tools.verification.gate import read_report
from mar_tools.verification.golden_making import find_score_threshold
from mar_tools.verification.kept_answers import Answer, read_answers
from mar_tools.verification.labelled import read_verification_images
from mar_tools.verification.observations import load_handler, observe
from vision_serving.config import HandlerConfig, read_handler_config
from vision_serving.errors import ConfigError
from vision_serving.labels import read_labels

ROWS: TypeAdapter[list[Candidate]] = TypeAdapter(list[Candidate])


def report_archive(archive: Path, target: Path, images: VerificationRecipe | None = None) -> Path:
    """Write the report of an archive. images: what the archive is to answer now, with the truth where that is known.

    Raises ConfigError for what is no archive of ours, and for images that do not fit the model.
    """
    with tempfile.TemporaryDirectory(prefix="vision-serving-") as temporary:
        folder = Path(temporary)
        identity = extract_archive(archive, folder)
        if not (folder / "model-config.yaml").is_file():
            raise ConfigError(f"{archive}: no model-config.yaml inside; expected an archive of build_model.py")
        try:
            evidence = gather_evidence(folder, identity, images)
            return write_report(evidence, target)
        except (ValidationError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{archive}: its evidence is not what build_model.py writes: {error}") from error


def gather_evidence(folder: Path, identity: tuple[str, str], images: VerificationRecipe | None) -> Evidence:
    """Read the evidence of an extracted archive."""
    config = read_handler_config(folder / "model-config.yaml")
    labels = read_labels(folder / config.labels)
    report = read_report(folder)
    rows = ROWS.validate_python(report.get("candidates", ()))
    name = f"{config.backend} {config.precision}"
    if images is not None:
        return observe_images(Evidence(*identity, config, labels, rows, None, Side(name, report)), folder, images)
    by_class = ByClass.model_validate(report["by_class"]) if "by_class" in report else None
    golden = read_golden(folder, config)
    side = Side(name, report, None if golden is None else [golden], by_class)
    return Evidence(*identity, config, labels, rows, None, side, (folder / PICTURE,))


def read_golden(folder: Path, config: HandlerConfig) -> Answer | None:
    """Return the answer to the one picture that an archive carries; None where it has none."""
    if not (folder / GOLDEN).is_file() or not (folder / PICTURE).is_file():
        return None
    golden = Golden.model_validate(orjson.loads((folder / GOLDEN).read_bytes()))
    if golden.embedding is not None:  # which has no neighbours
        return None
    found = golden.found
    answer = {
        "class_ids": torch.tensor([each.class_id for each in found], dtype=torch.int64),
        "scores": torch.tensor([each.score for each in found], dtype=torch.float32),
    }
    if find_score_threshold(config) is not None:  # a detector
        boxes = torch.tensor([each.box or (0, 0, 0, 0) for each in found], dtype=torch.float32)
        answer["source_boxes"] = boxes.reshape(-1, 4)
    return answer


def observe_images(evidence: Evidence, folder: Path, verification: VerificationRecipe) -> Evidence:
    """Return the evidence with the answers of the archive's own model to these images, and how good they are."""
    try:
        check_truth(evidence.config.task, verification)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    images = read_verification_images(verification, evidence.config, evidence.labels)
    task, side = evidence.config.task, evidence.main
    seen = observe(load_handler(folder), images.paths)
    answers = read_answers(seen)
    report: Mapping[str, Any] = side.report
    by_class = None
    if images.truth is not None:
        by_class = measure_by_class(answers, images.truth)
        report = {**report, "accuracy": {"candidate": measure_accuracy(task, seen, images.truth)}}
    source = verification.images.name if verification.images else "photographs"
    return replace(
        evidence,
        chosen=Side(side.name, report, answers, by_class),
        paths=images.paths,
        truth=images.truth,
        images=f"{len(images.paths)} images, {source}",
    )
