"""Evidence for reports, made up: pictures, answers and truths that a test knows."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from fakes import EXACT_16, generate_image

from mar_tools.building.candidates import Candidate
from mar_tools.reporting.by_class import measure_by_class
from mar_tools.reporting.evidence import Evidence, Side
from mar_tools.verification.kept_answers import Answer
from mar_tools.verification.labelled import Truth
from vision_serving.config import HandlerConfig

SCRIPT = "<script>alert(1)</script>"
QUOTES = "\"><img src=x onerror='alert(2)'>"
TURNED = "\u202eto the left \x1b[31m{{ 7 * 7 }}"
HOSTILE = (SCRIPT, QUOTES, TURNED)  # labels and names of files
ROWS = (
    Candidate("openvino", "int8", "cpu", "chosen", size_mb=1.1, load_s=0.2, images_per_s={"1": 100.0, "8": 400.0},
              speedup=4.0, measured={"top1_agreement": 0.98, "matched_boxes": 0.98, "snr_db": 22.0},
              accuracy={"top1": 0.97, "map": 0.75}),
    Candidate("aotinductor", "fp32", "cpu", "verified", size_mb=4.0, load_s=1.0, images_per_s={"1": 90.0, "8": 300.0},
              speedup=3.0, measured={"top1_agreement": 1.0, "matched_boxes": 1.0, "snr_db": 120.0},
              accuracy={"top1": 0.98, "map": 0.76}),
    Candidate("onnxruntime", "int8", "cpu", "rejected", f"top-1 agreement 0.5, at least 0.97 asked {SCRIPT}",
              size_mb=1.0,
              measured={"top1_agreement": 0.5, "matched_boxes": 0.5, "snr_db": 5.0},
              accuracy={"top1": 0.5, "map": 0.1}),
    Candidate("tvm", "fp32", "cpu", "not tried", "the budget of 1 min was used up"),
    Candidate("eager", "fp32", "cpu", "reference", images_per_s={"1": 40.0, "8": 100.0}, speedup=1.0,
              measured={"top1_agreement": 1.0, "matched_boxes": 1.0, "snr_db": 200.0},
              accuracy={"top1": 0.98, "map": 0.76}),
)  # fmt: skip
PROOF: dict[str, Any] = {
    "failures": ["top-1 agreement 0.98, at least 0.99 asked"],
    "images": {"count": 6, "source": SCRIPT},
    "measured": {"top1_agreement": 0.98, "snr_db": 22.0},
    "bounds": {"min_top1_agreement": 0.99, "min_snr_db": 10.0, "max_accuracy_drop": 0.02},
    "accuracy": {"reference": {"top1": 0.98, "map": 0.76}, "candidate": {"top1": 0.97, "map": 0.75}},
    "versions": {"torch": "2.14.1"},
    "machine": {"cpu": SCRIPT, "cores": 2},
    "weights": "weights.safetensors",
    "artifact_sha256": "0" * 64,
}


def config_of(task: str, **section: Any) -> HandlerConfig:
    own = {"task": task, "backend": "openvino", "artifact": "model.xml", "preprocessing": EXACT_16}
    return HandlerConfig.model_validate({**own, **section})


def write_pictures(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index}{HOSTILE[index % len(HOSTILE)].replace('/', '')}.jpg" for index in range(count)]
    for index, path in enumerate(paths):
        PIL.Image.fromarray(generate_image(index, (60, 80))).save(path)
    return paths


def classes(*best: int, sure: float = 0.9) -> list[Answer]:
    """One answer for each: that class with the score, the next with the rest, of three classes."""
    return [
        {"class_ids": torch.tensor([each, (each + 1) % 3]), "scores": torch.tensor([sure, 1 - sure])} for each in best
    ]


def boxes(*scores: float, class_id: int = 0) -> Answer:
    """Boxes side by side, 10 pixels wide, all of one class."""
    corners = [[20.0 * index, 5.0, 20.0 * index + 10, 25.0] for index in range(len(scores))]
    return {
        "class_ids": torch.full((len(scores),), class_id),
        "scores": torch.tensor(scores),
        "source_boxes": torch.tensor(corners).reshape(-1, 4),
    }


def box_truth(answer: Answer) -> Truth:
    labels = answer["class_ids"]
    return {"boxes": answer["source_boxes"], "labels": labels, "iscrowd": torch.zeros_like(labels)}


def make_evidence(
    folder: Path,
    task: str,
    before: Sequence[Answer],
    after: Sequence[Answer],
    truth: Sequence[Truth] | None = None,
    labels: Sequence[str] = HOSTILE,
    **section: Any,
) -> Evidence:
    paths = write_pictures(folder, len(before))
    measure = "map" if task == "detection" or "activation" in section else "top1"
    rows = [row if row.accuracy is None else replace(row, accuracy={measure: row.accuracy[measure]}) for row in ROWS]
    accuracy = {side: {measure: figures[measure]} for side, figures in PROOF["accuracy"].items()}
    proof = {**PROOF, "accuracy": accuracy}
    sides = [
        Side(name, proof, answers, None if truth is None else measure_by_class(answers, truth))
        for name, answers in (("eager fp32", before), ("openvino int8", after))
    ]
    return Evidence(SCRIPT, QUOTES, config_of(task, **section), labels, rows, sides[0], sides[1], paths, truth)


def classifier_evidence(folder: Path) -> Evidence:
    """Six pictures: the reference is wrong about the last, and the chosen one changes the first two."""
    truth = [{"class_ids": torch.tensor([each])} for each in (0, 1, 2, 0, 1, 2)]
    before = classes(0, 1, 2, 0, 1, 0)
    before[1] = classes(1, sure=0.51)[0]
    return make_evidence(folder, "classification", before, classes(2, 2, 2, 0, 1, 0), truth)


def detector_evidence(folder: Path) -> Evidence:
    """Three pictures: a box is missed in the first, and in the second the chosen one loses one."""
    before = [boxes(0.9, 0.8), boxes(0.9, 0.8, 0.7), boxes(0.9, class_id=2)]
    after = [boxes(0.9, 0.8), boxes(0.9, 0.8), boxes(0.9, class_id=2)]
    truth = [box_truth(boxes(1.0, 1.0, 1.0)), box_truth(before[1]), box_truth(before[2])]
    return make_evidence(folder, "detection", before, after, truth)


def without_answers(evidence: Evidence) -> Evidence:
    assert evidence.reference is not None
    assert evidence.chosen is not None
    return replace(
        evidence, reference=replace(evidence.reference, answers=None), chosen=replace(evidence.chosen, answers=None)
    )
