import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
import yaml
from conftest import MakeRecipe, RunHere, TinyModel
from fakes import encode_image, noise_image
from safetensors.torch import load_file, save_file
from torch import Tensor

from mar_tools.exporting.export import export_model
from mar_tools.exporting.export_folders import read_manifest
from mar_tools.images import PHOTOGRAPHS, choose_images
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import BaselineRecipe, read_recipe
from mar_tools.verification import observations
from mar_tools.verification.accuracy import PRIMARY
from mar_tools.verification.gate import list_failures, require_verified, verify_export
from mar_tools.verification.observations import (
    KEPT_OBSERVATIONS,
    load_handler,
    observe,
    observe_mirrored,
    observe_reference,
)
from vision_serving.backends.openvino import OpenVinoBackend
from vision_serving.errors import ConfigError
from vision_serving.pictures.resizing import ImageBatch


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


def test_a_batch_of_one_is_compared_and_batches_of_several(
    tiny_classifier: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = load_handler(tiny_classifier.folders["eager"])
    infer, sizes = handler.inference, list[int]()

    def infer_and_count(batch: ImageBatch) -> dict[str, Tensor]:
        sizes.append(len(batch.pixels))
        return infer(batch)

    monkeypatch.setattr(handler, "inference", infer_and_count)
    observe(handler, choose_images(None, 8, "verification"))
    assert sizes == [1, 4, 3]


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
    assert report["failures"][0].startswith("SNR in dB ")
    with pytest.raises(ConfigError, match="verification failed: SNR in dB"):
        require_verified(exported)


@pytest.mark.parametrize("score_threshold", [0.0, 1.0], ids=["every box is confident", "no box is confident"])
def test_a_detector_with_right_scores_and_wrong_boxes_is_rejected(
    tiny_detector: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, score_threshold: float
) -> None:
    exports = tmp_path / "exports"
    for backend in ("eager", "openvino"):
        shutil.copytree(tiny_detector.folders[backend], exports / f"{backend}-fp32")
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


# The reference's observations are kept


@pytest.fixture
def reference(exported: Path) -> Path:
    return exported.parent / "eager-fp32"


def forbid_running(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        raise AssertionError(f"{folder} was loaded again")

    monkeypatch.setattr(observations, "load_handler", refuse)


@pytest.mark.parametrize("fixture", ["tiny_classifier", "tiny_detector"])
def test_the_reference_runs_once_and_is_remembered_exactly(
    fixture: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: TinyModel = request.getfixturevalue(fixture)
    reference = tmp_path / "eager-fp32"
    shutil.copytree(model.folders["eager"], reference)
    paths, handler = choose_images(None, 3), load_handler(reference)
    expected = observe(handler, paths)
    if handler.config.task == "detection":
        expected = [{**one, **more} for one, more in zip(expected, observe_mirrored(handler, paths), strict=True)]
    observe_reference(reference, paths)
    forbid_running(monkeypatch)
    kept = observe_reference(reference, paths)
    assert len(kept) == len(expected) == 3
    for image, original in zip(kept, expected, strict=True):
        assert image.keys() == original.keys()
        assert all(torch.equal(image[name], original[name]) for name in original)


@pytest.mark.parametrize("change", ["weights", "config", "labels", "images"])
def test_the_reference_runs_again_when_anything_changed(
    reference: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    paths = choose_images(None, 2)
    observe_reference(reference, paths)
    if change == "weights":
        save_file({**load_file(reference / "model" / "model.safetensors")}, reference / "model" / "other.safetensors")
    elif change == "config":
        replace_text(reference / "model-config.yaml", "max_images: 64", "max_images: 63")
    elif change == "labels":
        replace_text(reference / "labels.json", "cat", "cow")
    else:
        paths = choose_images(None, 2, "verification")
    forbid_running(monkeypatch)
    with pytest.raises(AssertionError, match="was loaded again"):
        observe_reference(reference, paths)


def test_a_damaged_memory_is_replaced(reference: Path) -> None:
    paths = choose_images(None, 2)
    expected = observe_reference(reference, paths)
    (reference.parent / KEPT_OBSERVATIONS).write_bytes(b"damaged")
    assert torch.equal(observe_reference(reference, paths)[0]["logits"], expected[0]["logits"])
    assert (reference.parent / KEPT_OBSERVATIONS).stat().st_size > 100


def test_what_was_quantised_and_assumed_of_the_cpu_is_reported(exported: Path) -> None:
    assert verify_export(exported)["quantization"] == {}
    document = orjson.loads((exported / "export.json").read_bytes())
    document["quantization"] = {"scheme": "static", "calibration_images": 300}
    (exported / "export.json").write_bytes(orjson.dumps(document))
    assert verify_export(exported)["quantization"] == {"scheme": "static", "calibration_images": 300}


# The command


def test_the_command_prints_measures_bounds_and_accuracy(run_here: RunHere, exported: Path, tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        shutil.copytree(PHOTOGRAPHS, tmp_path / "images" / label)
    labelled = ("--images", str(tmp_path / "images"), "--labels", "folders", "--count", "6")
    finished = run_here("verify_model.py", exported, *labelled)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "verified\n"
    for words in (
        "SNR in dB",
        "≥ 60",
        "accuracy drop",
        "top-1 accuracy of reference",
        "top-5 accuracy of candidate",
        "6 images of images",
    ):
        assert words in finished.stderr
    report = orjson.loads((exported / "verification.json").read_bytes())
    assert report["accuracy"]["reference"] == report["accuracy"]["candidate"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "folders"], "says what is in `images`, which is missing"),
        (["--images", "nowhere"], "nowhere: no such file or folder"),
        (["--images", "nowhere", "--annotations", "a.json"], "`annotations` belongs to detection"),
        (["--count", "0"], "greater than 0"),
    ],
    ids=["labels of nothing", "no images", "truth of another task", "no image"],
)
def test_the_command_refuses_what_cannot_be_compared(
    run_here: RunHere, exported: Path, arguments: list[str], message: str
) -> None:
    finished = run_here("verify_model.py", exported, *arguments)
    assert finished.returncode == 1
    *_, problem = finished.stderr.splitlines()  # what the command does stands above it
    assert problem.startswith("error: ")
    assert message in problem


def export_with_scaled_decoding(recipe_path: Path, exports: Path) -> Path:
    recipe = read_recipe(recipe_path)
    return export_model(recipe, load_checkpoint(recipe), "eager", "fp32", exports)


def test_a_worker_that_decodes_smaller_is_compared_with_whole_pictures(tiny_recipe: MakeRecipe, tmp_path: Path) -> None:
    folder = export_with_scaled_decoding(tiny_recipe(scaled_decoding=True), tmp_path / "exports")
    report = verify_export(folder)
    assert report["measured"]["snr_db"] < 60, "the same network, but not the same pixels"
    assert report["bounds"]["min_snr_db"] == 25, "those of bf16"


def test_decoding_smaller_has_to_be_shown_on_pictures_that_are_large_enough(
    tiny_recipe: MakeRecipe, tmp_path: Path
) -> None:
    pictures = tmp_path / "recipe" / "pictures"
    pictures.mkdir(parents=True)
    for number in range(2):
        (pictures / f"{number}.jpg").write_bytes(encode_image(noise_image(number, (120, 120)), "JPEG"))
    recipe = tiny_recipe(scaled_decoding=True, verification={"images": "pictures"})
    with pytest.raises(ConfigError, match="none of the verification images is a JPEG so large"):
        verify_export(export_with_scaled_decoding(recipe, tmp_path / "exports"))


def test_detectors_see_whole_pictures(tiny_recipe: MakeRecipe) -> None:
    with pytest.raises(ConfigError, match="`scaled_decoding` is not for detection"):
        read_recipe(tiny_recipe("detection", scaled_decoding=True))


@pytest.mark.parametrize("name", PRIMARY)
def test_a_floor_is_asked_of_the_reference_whatever_else_was_measured(name: str) -> None:
    floor, shares = PRIMARY[name], dict.fromkeys(PRIMARY, 0.9) | {name: 0.5}
    accuracy, bounds = {"reference": shares, "candidate": shares}, {f"min_{floor}": 0.8}
    assert list_failures({floor: 0.9}, accuracy, bounds) == [
        f"{'mAP' if floor == 'map' else floor} of the reference itself is 0.5, at least 0.8 asked"
    ]
    assert list_failures({floor: 0.9}, accuracy, {f"min_{floor}": 0.4}) == []


def test_a_compressed_network_that_lost_too_much_is_told_once_with_what_it_was() -> None:
    shares = {"top1": 0.8}
    baseline = BaselineRecipe(name="flowers", accuracy=0.92, steps="prune 0.5")
    accuracy = {"reference": shares, "candidate": shares}
    assert list_failures({"accuracy": 0.8}, accuracy, {"min_accuracy": 0.91}, baseline) == [
        "accuracy of the reference itself is 0.8, at least 0.91 asked: before it was compressed (prune 0.5), it was "
        "0.92; take less away, or train for longer"
    ]
