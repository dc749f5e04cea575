import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
import yaml
from conftest import TinyModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from mar_tools.exports import ExportManifest, read_manifest
from mar_tools.recipes import VerificationRecipe
from mar_tools.verification import (
    choose_bounds,
    find_failures,
    match_boxes,
    require_verified,
    signal_to_noise_db,
    verify_export,
)
from vision_serving.backends.openvino import OpenVinoBackend
from vision_serving.errors import ConfigError
from vision_serving.postprocessing import Candidates

THRESHOLD = 0.5


def found(*rows: tuple[float, float, int]) -> Candidates:
    """Boxes of 10 x 10 from (left, score, class id)."""
    boxes = torch.tensor([[left, 0.0, left + 10, 10.0] for left, _, _ in rows]).reshape(-1, 4)
    scores, class_ids = (
        torch.tensor([row[1] for row in rows]),
        torch.tensor([row[2] for row in rows], dtype=torch.int64),
    )
    return Candidates(boxes, scores, class_ids)


CAT, DOG, UNSURE = (0.0, 0.9, 1), (50.0, 0.8, 2), (100.0, 0.52, 1)


@pytest.mark.parametrize(
    ("expected", "seen", "matched", "iou", "difference"),
    [
        (found(), found(), 1.0, 1.0, 0.0),
        (found(CAT), found(), 0.0, 1.0, 0.0),
        (found(), found(CAT), 0.0, 1.0, 0.0),
        (found(CAT, DOG), found(DOG, CAT), 1.0, 1.0, 0.0),
        (found(CAT, DOG), found(CAT), 2 / 3, 1.0, 0.0),
        (found(CAT), found((0.0, 0.9, 2)), 0.0, 1.0, 0.0),
        (found(CAT), found((0.0, 0.7, 1)), 1.0, 1.0, 0.2),
        (found(CAT), found((2.0, 0.9, 1)), 1.0, 8 / 12, 0.0),
        (found(CAT), found((5.0, 0.9, 1)), 0.0, 1.0, 0.0),
        (found(CAT, UNSURE), found(CAT), 1.0, 1.0, 0.0),
        (found(CAT), found(CAT, UNSURE), 1.0, 1.0, 0.0),
        (found(UNSURE), found(), 1.0, 1.0, 0.0),
        (found(CAT, (1.0, 0.8, 1)), found(CAT, (1.0, 0.8, 1)), 1.0, 1.0, 0.0),
        (found(CAT, CAT), found(CAT), 2 / 3, 1.0, 0.0),
    ],
    ids=["nothing", "lost", "invented", "another order", "one lost", "another class", "another score", "moved a little",
         "moved away", "unsure and lost", "unsure and invented", "only unsure", "close neighbours", "one for two"],
)  # fmt: skip
def test_boxes_are_paired_one_to_one_by_class_and_overlap(
    expected: Candidates, seen: Candidates, matched: float, iou: float, difference: float
) -> None:
    # 1e-6: the boxes and scores are float32
    assert match_boxes(expected, seen, THRESHOLD) == pytest.approx((matched, iou, difference), abs=1e-6)


@pytest.mark.parametrize(
    ("noise", "decibels"),
    [(0.0, 200.0), (1.0, 0.0), (0.1, 20.0), (0.01, 40.0)],
    ids=["equal", "as loud", "a tenth", "a hundredth"],
)
def test_signal_to_noise_is_in_decibels(noise: float, decibels: float) -> None:
    expected = torch.tensor([1.0, -1.0]).repeat(50)
    # 0.001 dB: float32 squares of small differences
    assert signal_to_noise_db(expected, expected + noise) == pytest.approx(decibels, abs=1e-3)


@pytest.mark.parametrize("values", [torch.zeros(4), torch.full((4,), 5.0)], ids=["zeros", "constant"])
def test_outputs_without_any_signal_have_no_quality(values: Tensor) -> None:
    assert signal_to_noise_db(values, values + 1) < 0


def test_outputs_that_are_not_finite_have_no_quality() -> None:
    values = torch.tensor([1.0, -1.0])
    assert find_failures({"snr_db": signal_to_noise_db(values, values * float("nan"))}, {"min_snr_db": 10.0})


@pytest.mark.parametrize(
    ("measured", "failures"),
    [
        ({"iou": 0.9, "score_difference": 0.1}, []),
        ({"iou": 0.89, "score_difference": 0.1}, ["iou 0.89, at least 0.9 asked"]),
        ({"iou": 0.9, "score_difference": 0.11}, ["score_difference 0.11, at most 0.1 asked"]),
        ({"iou": float("nan"), "score_difference": float("nan")},
         ["iou nan, at least 0.9 asked", "score_difference nan, at most 0.1 asked"]),
    ],
    ids=["at the bounds", "below", "above", "not a number"],
)  # fmt: skip
def test_broken_bounds_are_said_in_words(measured: dict[str, float], failures: list[str]) -> None:
    assert find_failures(measured, {"min_iou": 0.9, "max_score_difference": 0.1}) == failures


def test_a_bound_of_another_task_is_refused() -> None:
    with pytest.raises(ConfigError, match="bound 'min_iou' does not fit this task; it measures"):
        find_failures({"top1_agreement": 1.0}, {"min_iou": 0.9})


def manifest(weights: str = "trained.pth", task: str = "classification", **bounds: float) -> ExportManifest:
    verification = VerificationRecipe.model_validate(bounds)
    return ExportManifest.model_validate(
        {"name": "x", "version": "1", "task": task, "weights": weights, "verification": verification}
    )


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (manifest(), {"min_top1_agreement", "max_score_difference", "min_snr_db"}),
        (manifest(task="detection"), {"min_matched_boxes", "min_iou", "max_score_difference", "min_snr_db"}),
        (manifest("random"), {"min_snr_db"}),
    ],
    ids=["classification", "detection", "random weights"],
)
def test_bounds_are_those_of_the_task(given: ExportManifest, names: set[str]) -> None:
    assert choose_bounds(given, "fp32").keys() == names


def test_bounds_of_the_recipe_win() -> None:
    assert choose_bounds(manifest(min_top1_agreement=0.5), "fp32")["min_top1_agreement"] == 0.5


# Whole exports


@pytest.mark.parametrize("backend", ["eager", "openvino"])
@pytest.mark.parametrize("fixture", ["tiny_classifier", "tiny_detector"])
def test_an_export_that_computes_the_same_is_verified(
    fixture: str, backend: str, request: pytest.FixtureRequest
) -> None:
    model: TinyModel = request.getfixturevalue(fixture)
    report = model.reports[backend]
    assert report["passed"], report["failures"]
    assert report["images"] == {"count": 4, "source": "photographs"}
    assert report["weights"] == "random"
    assert require_verified(model.folders[backend]) == report


def test_the_report_is_strict_json(tiny_detector: TinyModel) -> None:
    for folder in tiny_detector.folders.values():
        assert orjson.loads((folder / "verification.json").read_bytes())["passed"]


@pytest.fixture
def exported(tiny_classifier: TinyModel, tmp_path: Path) -> Path:
    """A verified OpenVINO export of its own, with its reference beside it."""
    exports = tmp_path / "exports"
    for backend in ("eager", "openvino"):
        shutil.copytree(tiny_classifier.folders[backend], exports / f"{backend}-fp32")
    return exports / "openvino-fp32"


def spoil_weights(folder: Path) -> None:
    data = bytearray((folder / "model.bin").read_bytes())
    data[-1] ^= 1
    (folder / "model.bin").write_bytes(data)


def test_an_export_that_computes_something_else_than_its_reference_is_rejected(exported: Path) -> None:
    reference = exported.parent / "eager-fp32" / "model" / "model.safetensors"
    state = load_file(reference)
    save_file({**state, "head.weight": state["head.weight"].flip(0)}, reference)
    report = verify_export(exported)
    assert not report["passed"]
    assert report["failures"][0].startswith("snr_db ")
    with pytest.raises(ConfigError, match="verification failed: snr_db"):
        require_verified(exported)


@pytest.mark.parametrize("score_threshold", [0.0, 1.0], ids=["every box is confident", "no box is confident"])
def test_a_detector_with_right_scores_and_wrong_boxes_is_rejected(
    tiny_detector: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, score_threshold: float
) -> None:
    exports = tmp_path / "exports"
    shutil.copytree(tiny_detector.folders["eager"].parent, exports)
    for config in exports.glob("*/model-config.yaml"):
        document = yaml.safe_load(config.read_text())
        document["handler"]["options"] = {"score_threshold": score_threshold}
        config.write_text(yaml.safe_dump(document))
    infer = OpenVinoBackend.infer

    def infer_wrong_boxes(self: OpenVinoBackend, pixels: Tensor) -> dict[str, Tensor]:
        outputs = infer(self, pixels)
        return {**outputs, "boxes": torch.full_like(outputs["boxes"], 7.0)}

    monkeypatch.setattr(OpenVinoBackend, "infer", infer_wrong_boxes)
    report = verify_export(exports / "openvino-fp32")
    assert report["measured"]["snr_db"] > 60
    assert not report["passed"]


def test_an_export_without_its_reference_cannot_be_verified(exported: Path) -> None:
    shutil.rmtree(exported.parent / "eager-fp32")
    with pytest.raises(ConfigError, match="no reference to compare with"):
        verify_export(exported)


def replace_text(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def change_report(folder: Path, **changes: Any) -> None:
    path = folder / "verification.json"
    path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), **changes}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "verification.json").unlink(), "not verified"),
        (lambda folder: (folder / "verification.json").write_bytes(b""), "verification"),
        (lambda folder: (folder / "verification.json").write_bytes(b"{}"), "verification"),
        (lambda folder: change_report(folder, passed=False, failures=["too far"]), "verification failed: too far"),
        (lambda folder: change_report(folder, artifact_sha256="0" * 64), "changed after verification"),
        (spoil_weights, "changed after verification"),
        (lambda folder: (folder / "model.xml").write_text("<net/>"), "changed after verification"),
        (lambda folder: (folder / "model.bin").unlink(), "changed after verification"),
        (lambda folder: (folder / "model-config.yaml").write_text("handler: {}"), "missing key"),
        (lambda folder: replace_text(folder / "model-config.yaml", "precision: fp32", "precision: bf16"),
         "changed after verification"),
        (lambda folder: replace_text(folder / "labels.json", "cat", "dog"), "changed after verification"),
    ],
    ids=["missing", "empty", "no report", "failed", "of another artifact", "weights changed", "graph changed",
         "weights gone", "config changed", "precision changed", "labels changed"],
)  # fmt: skip
def test_an_export_that_is_not_verified_as_it_is_is_refused(
    exported: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(exported)
    with pytest.raises(ConfigError, match=message):
        require_verified(exported)


def test_the_manifest_survives_its_file(exported: Path) -> None:
    assert read_manifest(exported).verification.count == 4
