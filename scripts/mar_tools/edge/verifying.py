"""A folder's answers beside those of eager fp32: verification.json, the golden picture and its answer."""

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import torch
from torch import Tensor

from mar_tools.archives.golden_prediction import GOLDEN, PICTURE, read_golden
from mar_tools.edge.answered_boxes import measure_answered_iou
from mar_tools.edge.running import EdgeModel
from mar_tools.exporting.export_folders import hash_artifact
from mar_tools.exporting.signal_to_noise import signal_to_noise_db
from mar_tools.machine import cpu_name
from mar_tools.models.checkpoints import RANDOM
from mar_tools.models.handlers_by_task import new_handler
from mar_tools.models.recipes import Recipe
from mar_tools.verification.bounds import choose_bounds
from mar_tools.verification.gate import list_failures, measure_export
from mar_tools.verification.golden_making import choose_options, write_golden
from mar_tools.verification.labelled import VerificationImages
from mar_tools.verification.observations import Observation, load_handler, observe, observe_reference
from vision_serving.backends.base import FixedBatchBackend, LoadedBackend
from vision_serving.config import HandlerConfig
from vision_serving.errors import ConfigError


class EdgeBackend:
    """The runtime of a folder in the place of a backend."""

    def __init__(self, model: EdgeModel) -> None:
        self._model = model

    def infer(self, pixels: Tensor) -> dict[str, Tensor]:
        return self._model.infer(pixels)


def verify_folder(
    folder: Path,
    recipe: Recipe,
    config: HandlerConfig,
    labels: Sequence[str],
    model: EdgeModel,
    images: VerificationImages,
    reference: Path,
) -> dict[str, Any]:
    """Write golden.png, golden.json and verification.json, and return the last. reference: eager fp32's export.

    Raises ConfigError where a bound of the precision is broken, or the folder's own program answers otherwise.
    """
    backend: LoadedBackend = EdgeBackend(model)
    if config.fixed_batch is not None:
        backend = FixedBatchBackend(backend, config.fixed_batch)
    handler = new_handler(config.task)
    handler.assemble(config, labels, backend)
    expected, found = observe_reference(reference, images.paths), observe(handler, images.paths, whole=True)
    measured, accuracy = measure_export(config, images, expected, found)
    measured["overall_snr_db"] = round(overall_snr_db(expected, found), 2)
    if config.task == "detection":
        answered_iou = measure_answered_iou(load_handler(reference), handler, images.paths)
        measured |= {} if answered_iou is None else {"answered_iou": round(answered_iou, 6)}
    bounds = choose_bounds(
        recipe.verification, config.precision, measured, random_weights=recipe.model.weights == RANDOM
    )
    failures = list_failures(measured, accuracy, bounds)
    options = choose_options(handler) if config.task == "embedding" else {}
    write_golden(folder, handler, images.paths, found, options)
    failures += check_golden(folder, model)
    report = {
        "passed": not failures,
        "failures": failures,
        "reference": "eager fp32",
        "runtime": model.runtime,
        "precision": config.precision,
        "artifact_sha256": hash_artifact(folder, config.artifact),
        "artifact_mb": round((folder / config.artifact).stat().st_size / 1e6, 2),
        "images": len(images.paths),
        "measured": measured,
        "bounds": bounds,
        "accuracy": accuracy,
        "machine": {"architecture": platform.machine(), "cpu": cpu_name()},
    }
    (folder / "verification.json").write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    if failures:
        raise ConfigError(f"{folder}: {'; '.join(failures)}")
    return report


def overall_snr_db(expected: Sequence[Observation], found: Sequence[Observation]) -> float:
    """Return the signal-to-noise ratio over all pictures together; `snr_db` is that of the worst one."""
    name = next(name for name in ("logits", "embedding", "score_profile") if name in expected[0])
    sides = [torch.stack([image[name] for image in side]) for side in (expected, found)]
    return signal_to_noise_db(*sides)


def check_golden(folder: Path, model: EdgeModel) -> list[str]:
    """Return how the folder's own programs answer to its golden picture otherwise than golden.json says."""
    golden = read_golden(folder)
    if golden is None:
        raise ConfigError(f"{folder}: no {GOLDEN}: the recipe's `limits` refuse PNG, or pictures of its size")
    return [f"golden picture: {problem}" for problem in golden[1].find_differences(model.predict(folder / PICTURE))]
