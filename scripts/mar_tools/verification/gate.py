"""Compare an export with the eager fp32 reference, write down what was seen, and let nothing else into an archive."""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from mar_tools.exporting.export_folders import REFERENCE, ExportManifest, hash_artifact, read_manifest
from mar_tools.images import read_image
from mar_tools.machine import cpu_name, package_versions
from mar_tools.measures import name_measure
from mar_tools.models.checkpoints import RANDOM
from mar_tools.models.recipes import BaselineRecipe, VerificationRecipe, check_truth
from mar_tools.verification.accuracy import PRIMARY, accuracy_drop, measure_accuracy
from mar_tools.verification.agreement import measure_agreement
from mar_tools.verification.alternatives import Alternatives, try_alternatives
from mar_tools.verification.bounds import SCALED_DECODING, choose_bounds, find_failures
from mar_tools.verification.distributions import KEY as DISTRIBUTIONS
from mar_tools.verification.distributions import describe_answers
from mar_tools.verification.golden_making import find_score_threshold, remove_golden, write_golden
from mar_tools.verification.kept_answers import keep_answers
from mar_tools.verification.labelled import VerificationImages, read_verification_images
from mar_tools.verification.observations import Observation, hash_config, load_handler, observe, observe_reference
from mar_tools.verification.reading import Reading, check_reading, have_different_content
from mar_tools.verification.seen_answers import Seen
from vision_serving.backends.base import read_document
from vision_serving.backends.eager import SOURCE, EagerSource
from vision_serving.config import HandlerConfig, Precision, read_handler_config
from vision_serving.cores import usable_cores
from vision_serving.errors import ConfigError
from vision_serving.handler import VisionHandler
from vision_serving.labels import read_labels
from vision_serving.pictures.decoding import open_image
from vision_serving.pictures.preparation import find_shrink
from vision_serving.validation import read_json, read_yaml

PACKAGES = ("torch", "torchvision", "openvino", "numpy", "Pillow")


def verify_export(folder: Path, verification: VerificationRecipe | None = None) -> dict[str, Any]:
    """Write `verification.json` into an export folder and return it.

    verification: in place of the recipe's, which the export remembers. Raises ConfigError when there is no reference,
    or when the images or bounds do not fit the model.
    """
    manifest = read_manifest(folder)
    config = read_handler_config(folder / "model-config.yaml")
    verification = verification or manifest.verification
    images = _read_images(folder, config, verification)
    handler, expected, found = observe_both(folder, config, images.paths)
    evidence = judge_export(folder, manifest, verification, images, expected, found)
    report = {
        "passed": not evidence["failures"],
        "failures": evidence.pop("failures"),
        **describe_export(folder, manifest, config),
        "images": {
            "count": len(images.paths),
            "source": "photographs" if verification.images is None else verification.images.name,
        },
        **evidence,
        "baseline": manifest.baseline and manifest.baseline.model_dump(exclude_none=True),
        DISTRIBUTIONS: describe_answers(handler, images.paths, found),
        "versions": {**dict.fromkeys(PACKAGES, "not installed"), **package_versions(PACKAGES)},
        "machine": {"architecture": platform.machine(), "cpu": cpu_name(), "cores": usable_cores()},
    }
    remove_golden(folder)
    if report["passed"]:
        write_golden(folder, handler, images.paths, found)
    write_verification(folder, report)
    keep_answers(folder, report["artifact_sha256"], images.paths, found)
    return report


def judge_export(
    folder: Path,
    manifest: ExportManifest,
    verification: VerificationRecipe,
    images: VerificationImages,
    expected: Sequence[Observation],
    found: Sequence[Observation],
) -> dict[str, Any]:
    """Return the failures and what they rest on: first whether the reference is read right, then the comparison."""
    config = read_handler_config(folder / "model-config.yaml")
    random_weights = manifest.weights == RANDOM
    reading = read_answers(folder, config, verification, images, expected, random_weights)
    alternatives = Alternatives([])
    if folder.name == REFERENCE and images.truth is not None and not random_weights and not reading.is_impossible:
        alternatives = try_alternatives(folder, config, images, expected)
    faults, warnings = list(reading.faults), list(reading.warnings)
    if alternatives.advice is not None:
        is_fault = alternatives.is_clear and "preprocessing" not in verification.allow
        (faults if is_fault else warnings).insert(0, alternatives.advice)
    measured: dict[str, float] = {}
    bounds: dict[str, float] = {}
    accuracy = None
    if not faults:
        measured, accuracy = measure_export(config, images, expected, found)
        bounds = choose_bounds(verification, _judged_precision(config), measured, random_weights=random_weights)
    failures = faults or list_failures(measured, accuracy, bounds, manifest.baseline)
    if failures and not faults and alternatives.advice is not None and manifest.baseline is None:
        failures.append(alternatives.advice)
    return {
        "failures": failures,
        "reading": {"warnings": warnings, "ranges": reading.ranges},
        "assumed": manifest.assumed,
        "alternatives": alternatives.attempts,
        "measured": measured,
        "bounds": bounds,
        "accuracy": accuracy,
    }


def read_answers(
    folder: Path,
    config: HandlerConfig,
    verification: VerificationRecipe,
    images: VerificationImages,
    expected: Sequence[Observation],
    random_weights: bool,
) -> Reading:
    """Check the answers of the reference beside an export by themselves."""
    reference = folder.parent / REFERENCE
    source = read_document(
        reference / read_handler_config(reference / "model-config.yaml").artifact / SOURCE, EagerSource
    )
    seen = Seen(
        observations=expected,
        config=config,
        output=source.network.output,
        labels=read_labels(folder / config.labels),
        truth=images.truth,
        differing=have_different_content(images.paths),
        own=verification.images is not None,
    )
    return check_reading(seen, verification.allow, random_weights=random_weights)


def _judged_precision(config: HandlerConfig) -> Precision:
    return SCALED_DECODING.get(config.precision, config.precision) if config.scaled_decoding else config.precision


def list_failures(
    measured: Mapping[str, float],
    accuracy: Mapping[str, Any] | None,
    bounds: Mapping[str, float],
    baseline: BaselineRecipe | None = None,
) -> list[str]:
    """Return what breaks a bound. A floor is asked of the reference too: an export may be better by luck."""
    failures: list[str] = []
    left, reference = dict(bounds), {} if accuracy is None else accuracy["reference"]
    for name, floor in PRIMARY.items():
        own, limit = reference.get(name, 1.0), bounds.get(f"min_{floor}", 0.0)
        if own < limit:
            failures.append(
                f"{name_measure(floor)} of the reference itself is {own:.4g}, at least {limit:.4g} asked"
                f"{tell_compression(baseline)}"
            )
            if measured.get(floor) == own:  # as in the verification of the reference: once is enough
                del left[f"min_{floor}"]
    failures += find_failures(measured, left)
    if measured.get("compared_boxes") == 0:
        failures.append("the model finds nothing at all in the verification images")
    return failures


def tell_compression(baseline: BaselineRecipe | None) -> str:
    """Return what a network was before it was compressed, and what to do where it lost too much."""
    if baseline is None:
        return ""
    was = baseline.map if baseline.accuracy is None else baseline.accuracy
    steps = f" ({baseline.steps})" if baseline.steps else ""
    return f": before it was compressed{steps}, it was {was:.4g}; take less away, or train for longer"


def _read_images(folder: Path, config: HandlerConfig, verification: VerificationRecipe) -> VerificationImages:
    try:
        check_truth(config.task, verification)
    except ValueError as error:
        raise ConfigError(f"{folder}: {error}") from error
    return read_verification_images(verification, config, read_labels(folder / config.labels))


def observe_both(
    folder: Path, config: HandlerConfig, paths: Sequence[Path]
) -> tuple[VisionHandler, list[Observation], list[Observation]]:
    """Return the export's handler, and what the reference and it see in the images."""
    expected = observe_reference(folder.parent / REFERENCE, paths)
    if config.scaled_decoding:
        require_large_images(config, paths)
    handler = load_handler(folder)
    is_reference = folder.name == REFERENCE and not config.scaled_decoding
    return handler, expected, expected if is_reference else observe(handler, paths)


def measure_export(
    config: HandlerConfig, images: VerificationImages, expected: Sequence[Observation], found: Sequence[Observation]
) -> tuple[dict[str, float], dict[str, Any] | None]:
    """Return what is measured, and the accuracy of both where the truth is known."""
    measured = measure_agreement(config.task, expected, found, find_score_threshold(config) or 0.0)
    if images.truth is None:
        return measured, None
    reference, candidate = (measure_accuracy(config.task, side, images.truth) for side in (expected, found))
    measured["accuracy_drop"] = accuracy_drop(reference, candidate)
    measured |= {floor: candidate[name] for name, floor in PRIMARY.items() if name in candidate}
    return measured, {"reference": reference, "candidate": candidate}


def require_large_images(config: HandlerConfig, paths: Sequence[Path]) -> None:
    """Raises ConfigError where no image is so large that `scaled_decoding` would do anything to it."""
    shrink = find_shrink(config)
    assert shrink is not None
    for path in paths:
        with open_image(read_image(path), config.limits) as opened:
            before = opened.size
            shrink(opened)
            if opened.size != before:
                return
    raise ConfigError(
        "`scaled_decoding`: none of the verification images is a JPEG so large that it would be decoded smaller (four "
        "times the model's size in each direction); give some under `verification: images`, or leave it out"
    )


def describe_export(folder: Path, manifest: ExportManifest, config: HandlerConfig) -> dict[str, Any]:
    """Return what was verified: the artifact, how it is computed, and what it was made from."""
    handler_section = read_yaml(folder / "model-config.yaml")["handler"]
    return {
        "reference": REFERENCE,
        "backend": config.backend,
        "precision": config.precision,
        "artifact_sha256": hash_artifact(folder, config.artifact),
        "config_sha256": hash_config(folder, config),
        "weights": manifest.weights if manifest.weights == RANDOM else Path(manifest.weights).name,
        "quantization": manifest.quantization,
        "cpu_features": handler_section.get("cpu_features"),
    }


def require_verified(folder: Path) -> Mapping[str, Any]:
    """Return the folder's verification. Raises ConfigError when it is missing, failed, or of other artifact bytes."""
    report = read_report(folder)
    if not report["passed"]:
        raise ConfigError(f"{folder}: verification failed: {'; '.join(report['failures'])}")
    config = read_handler_config(folder / "model-config.yaml")
    verified_sha256 = report["artifact_sha256"], report["config_sha256"]
    if verified_sha256 != (hash_artifact(folder, config.artifact), hash_config(folder, config)):
        again = f"run verify_model.py {folder} again"
        raise ConfigError(f"{folder}: the artifact or its configuration changed after verification; {again}")
    return report


def extend_report(folder: Path, values: Mapping[str, Any]) -> None:
    """Write more into the `verification.json` of an export folder, which its archive then has. Raises ConfigError."""
    write_verification(folder, {**read_report(folder), **values})


def write_verification(folder: Path, report: Mapping[str, Any]) -> None:
    (folder / "verification.json").write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))


def read_report(folder: Path) -> Mapping[str, Any]:
    """Read `verification.json` of an export folder. Raises ConfigError when there is none, or it is not a report."""
    path = folder / "verification.json"
    if not path.is_file():
        raise ConfigError(f"{folder}: not verified (no verification.json); run verify_model.py {folder} first")
    again = f"run verify_model.py {folder} again"
    report = read_json(path, again)
    found = report if isinstance(report, dict) else {}
    missing = {"passed", "failures", "artifact_sha256", "config_sha256"} - found.keys()
    if missing:
        raise ConfigError(f"{path}: not a verification report (no {min(missing)}); {again}")
    return found
