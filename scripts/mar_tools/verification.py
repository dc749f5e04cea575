"""Compare an exported artifact with the eager fp32 reference, on images, and write down what was seen."""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from torch import Tensor
from torchvision.ops import box_iou

from mar_tools.checkpoints import RANDOM
from mar_tools.exports import HANDLERS, REFERENCE, ExportManifest, hash_artifact, read_manifest
from mar_tools.images import load_encoded_images
from vision_serving.config import DetectionOptions, HandlerConfig, ImageLimits, Precision, read_handler_config
from vision_serving.errors import ConfigError
from vision_serving.handler import VisionHandler
from vision_serving.images import Image, decode_image
from vision_serving.postprocessing import Candidates, read_candidates, select_detections
from vision_serving.resources import usable_cores

PACKAGES = ("torch", "torchvision", "openvino", "numpy", "Pillow")

# Strict, but with room for the rounding of the arithmetic: bf16 has 8 bits of mantissa.
# Networks with random weights have no class margins, so they are judged by the signal-to-noise ratio of their outputs.
DEFAULT_BOUNDS: dict[Precision, dict[str, float]] = {
    "fp32": {
        "min_top1_agreement": 1.0,
        "min_matched_boxes": 0.99,
        "min_iou": 0.9,
        "max_score_difference": 0.01,
        "min_snr_db": 50.0,
    },
    "fp16": {
        "min_top1_agreement": 0.99,
        "min_matched_boxes": 0.98,
        "min_iou": 0.85,
        "max_score_difference": 0.03,
        "min_snr_db": 35.0,
    },
    "bf16": {
        "min_top1_agreement": 0.99,
        "min_matched_boxes": 0.95,
        "min_iou": 0.75,
        "max_score_difference": 0.1,
        "min_snr_db": 20.0,
    },
    "int8": {
        "min_top1_agreement": 0.97,
        "min_matched_boxes": 0.9,
        "max_score_difference": 0.3,
        "min_snr_db": 10.0,
    },
}
RANDOM_BOUNDS: dict[Precision, dict[str, float]] = {
    "fp32": {"min_snr_db": 60.0, "min_matched_boxes": 0.95},
    "fp16": {"min_snr_db": 40.0, "min_matched_boxes": 0.8},
    "bf16": {"min_snr_db": 25.0, "min_matched_boxes": 0.3},
    "int8": {"min_snr_db": 15.0, "min_matched_boxes": 0.2},
}
TASK_MEASURES = {
    "classification": ("top1_agreement", "score_difference", "snr_db"),
    "detection": ("matched_boxes", "iou", "score_difference", "snr_db"),
}


def verify_export(folder: Path) -> dict[str, Any]:
    """Write `verification.json` into an export folder and return it. Raises ConfigError when there is no reference."""
    manifest = read_manifest(folder)
    config = read_handler_config(folder / "model-config.yaml")
    encoded = load_encoded_images(manifest.verification.images, manifest.verification.count, "verification")
    images = [decode_image(data, ImageLimits()) for data in encoded]
    measured = measure_agreement(folder, images, manifest)
    bounds = choose_bounds(manifest, config.precision)
    failures = find_failures(measured, bounds)
    if measured.get("compared_boxes") == 0:
        failures.append("the model finds nothing at all in the verification images")
    report = {
        "passed": not failures,
        "failures": failures,
        "reference": REFERENCE,
        "backend": config.backend,
        "precision": config.precision,
        "artifact_sha256": hash_artifact(folder, config.artifact),
        "config_sha256": hash_config(folder, config),
        "images": {"count": len(images), "source": _image_source(manifest)},
        "weights": manifest.weights if manifest.weights == RANDOM else Path(manifest.weights).name,
        "measured": measured,
        "bounds": bounds,
        "versions": {name: _version(name) for name in PACKAGES},
        "machine": {"architecture": platform.machine(), "cpu": cpu_name(), "cores": usable_cores()},
    }
    (folder / "verification.json").write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    return report


def measure_agreement(folder: Path, images: Sequence[Image], manifest: ExportManifest) -> dict[str, float]:
    """How an export's answers differ from the reference's, over all images."""
    reference_folder = folder.parent / REFERENCE
    if not reference_folder.is_dir():
        raise ConfigError(f"{reference_folder}: no reference to compare with; export backend eager first")
    reference = load_handler(reference_folder)
    candidate = reference if folder.name == REFERENCE else load_handler(folder)
    compare = {"classification": _compare_classification, "detection": _compare_detection}[manifest.task]
    rows = [compare(reference, candidate, image) for image in images]
    return _summarise(rows)


def load_handler(folder: Path) -> VisionHandler:
    """The handler of an export folder, loaded as a worker would load it."""
    handler = HANDLERS[read_handler_config(folder / "model-config.yaml").task]()
    handler.load(folder, torch.device("cpu"))
    return handler


def _summarise(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of agreements, the worst of everything else."""
    summary: dict[str, float] = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        worst = {"score_difference": values.max, "iou": values.min, "snr_db": values.min}
        summary[name] = round(float(worst.get(name, values.mean)()), 6)
    return summary


def _compare_classification(reference: VisionHandler, candidate: VisionHandler, image: Image) -> dict[str, float]:
    expected, found = (outputs["logits"][0].float() for outputs in _run_both(reference, candidate, image))
    expected_scores, found_scores = expected.softmax(-1), found.softmax(-1)
    return {
        "top1_agreement": float(expected_scores.argmax() == found_scores.argmax()),
        "score_difference": float((expected_scores - found_scores).abs().max()),
        "snr_db": signal_to_noise_db(expected, found),
    }


def _compare_detection(reference: VisionHandler, candidate: VisionHandler, image: Image) -> dict[str, float]:
    expected, found = _run_both(reference, candidate, image)
    options = reference.read_options({})  # with the labels of a class_filter resolved
    assert isinstance(options, DetectionOptions)
    per_class = reference.config.candidates_per_class
    threshold = options.score_threshold
    ranked = select_detections(read_candidates(expected, 0, 0.0, per_class), options).scores
    if len(ranked) and ranked[0] <= threshold:
        # A picture without a confident box is compared on its best ones: comparing none would prove nothing.
        threshold = 0.9 * float(ranked[:COMPARED_BOXES].min())
    best = [
        _with_area(select_detections(read_candidates(outputs, 0, threshold, per_class), options))
        for outputs in (expected, found)
    ]
    matched, iou, difference = match_boxes(best[0], best[1], threshold)
    scores = [outputs["scores"].flatten().float().sort().values for outputs in (expected, found)]
    return {
        "matched_boxes": matched,
        "iou": iou,
        "score_difference": difference,
        "snr_db": signal_to_noise_db(scores[0], scores[1]),
        "compared_boxes": float(len(best[0].scores)),
    }


def _with_area(candidates: Candidates) -> Candidates:
    """Without the boxes that are thinner than a pixel, whose overlap means nothing; untrained networks give many."""
    widths_heights = candidates.boxes[:, 2:] - candidates.boxes[:, :2]
    return candidates.take((widths_heights >= 1).all(dim=1).nonzero().squeeze(1))


def _run_both(
    reference: VisionHandler, candidate: VisionHandler, image: Image
) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    expected = reference.inference(reference.preprocess([image]))
    found = expected if candidate is reference else candidate.inference(candidate.preprocess([image]))
    return expected, found


MATCH_IOU = 0.5
COMPARED_BOXES = 10  # of a picture without a confident one
THRESHOLD_SLACK = 0.1  # a box within this share above the threshold may be on either side of it


def match_boxes(expected: Candidates, found: Candidates, score_threshold: float) -> tuple[float, float, float]:
    """Pair boxes of one class one to one, the best overlap first.

    Gives the share of the boxes clearly above the threshold that have a partner, the least IoU and the largest score
    difference among the pairs.
    """
    overlap = box_iou(expected.boxes, found.boxes).nan_to_num()  # boxes without area have none
    overlap[expected.class_ids[:, None] != found.class_ids[None, :]] = 0.0
    partners: dict[int, int] = {}
    for flat in overlap.flatten().argsort(descending=True).tolist():
        row, column = divmod(flat, overlap.shape[1])
        if overlap[row, column] < MATCH_IOU:
            break
        if row not in partners and column not in partners.values():
            partners[row] = column
    clear = score_threshold * (1 + THRESHOLD_SLACK)
    owed_expected = {index for index, score in enumerate(expected.scores.tolist()) if score >= clear}
    owed_found = {index for index, score in enumerate(found.scores.tolist()) if score >= clear}
    owed = len(owed_expected) + len(owed_found)
    paid = len(owed_expected & partners.keys()) + len(owed_found & set(partners.values()))
    ious = [float(overlap[row, column]) for row, column in partners.items()]
    differences = [abs(float(expected.scores[row] - found.scores[column])) for row, column in partners.items()]
    return (paid / owed if owed else 1.0), min(ious, default=1.0), max(differences, default=0.0)


def signal_to_noise_db(expected: Tensor, found: Tensor) -> float:
    """10 log10 of the variance of the expected values over the mean squared difference, at most 200."""
    noise = (expected - found).square().mean().clamp(min=1e-30)
    signal = (expected - expected.mean()).square().mean().clamp(min=1e-30)
    return float((10 * torch.log10(signal / noise)).clamp(max=200.0))


def choose_bounds(manifest: ExportManifest, precision: Precision) -> dict[str, float]:
    """The defaults of the precision for this task, with the recipe's own values over them."""
    table = RANDOM_BOUNDS if manifest.weights == RANDOM else DEFAULT_BOUNDS
    names = TASK_MEASURES[manifest.task]
    defaults = {bound: value for bound, value in table[precision].items() if bound[4:] in names}
    own = manifest.verification.model_dump(exclude={"images", "count"}, exclude_none=True)
    return {**defaults, **own}


def find_failures(measured: Mapping[str, float], bounds: Mapping[str, float]) -> list[str]:
    """Which bounds (`min_...`, `max_...`) the measured values break, in words."""
    failures = []
    for bound, limit in bounds.items():
        kind, _, name = bound.partition("_")
        if name not in measured:
            raise ConfigError(f"bound {bound!r} does not fit this task; it measures {sorted(measured)}")
        value = measured[name]
        if not (value >= limit if kind == "min" else value <= limit):
            failures.append(f"{name} {value:.4g}, {'at least' if kind == 'min' else 'at most'} {limit:.4g} asked")
    return failures


def require_verified(folder: Path) -> dict[str, Any]:
    """The folder's verification. Raises ConfigError when it is missing, failed, or of other artifact bytes."""
    path = folder / "verification.json"
    again = f"run verify_model.py {folder} again"
    if not path.is_file():
        raise ConfigError(f"{folder}: not verified (no verification.json); run verify_model.py {folder} first")
    try:
        report: dict[str, Any] = orjson.loads(path.read_bytes())
        passed, failures = report["passed"], report["failures"]
        verified_sha256 = report["artifact_sha256"], report["config_sha256"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not a verification report; {again}") from error
    if not passed:
        raise ConfigError(f"{folder}: verification failed: {'; '.join(failures)}")
    config = read_handler_config(folder / "model-config.yaml")
    if verified_sha256 != (hash_artifact(folder, config.artifact), hash_config(folder, config)):
        raise ConfigError(f"{folder}: the artifact or its configuration changed after verification; {again}")
    return report


def hash_config(folder: Path, config: HandlerConfig) -> str:
    """SHA-256 of what decides, beside the artifact, which answer an archive gives: its `handler` section and labels."""
    digest = hashlib.sha256(config.model_dump_json().encode())
    digest.update((folder / config.labels).read_bytes())
    return digest.hexdigest()


def _image_source(manifest: ExportManifest) -> str:
    return "photographs" if manifest.verification.images is None else manifest.verification.images.name


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def cpu_name() -> str:
    """The model name of the CPU, as Linux gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        return platform.processor() or "unknown"
    lines = cpuinfo.read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
