"""The model card, and who gets it."""

import hashlib
from pathlib import Path
from typing import Any

import orjson
import pytest
from conftest import CPU, MakeHandler, TinyModel
from fakes import COLOURS, RED, new_context, png, write_model_dir

from image_classification import ImageClassificationHandler
from vision_serving.config import read_handler_config
from vision_serving.errors import ConfigError
from vision_serving.options import DetectionOptions
from vision_serving.worker.model_card import build_card, is_describe_job
from vision_serving.worker.service import TorchServeHandler

DESCRIBE = {"describe": "True"}


def card_of(folder: Path, **more: Any) -> dict[str, Any]:
    return build_card(folder, read_handler_config(folder / "model-config.yaml"), COLOURS, **more)


def handle(
    handler: TorchServeHandler, rows: list[dict[str, Any]], headers: list[dict[str, Any]], folder: Path = Path()
) -> list[tuple[int, Any]]:
    context = new_context(folder, headers)
    bodies = handler.handle(rows, context)
    return [(context.get_response_status(index)[0], orjson.loads(body)) for index, body in enumerate(bodies)]


def test_a_describe_job_gets_the_card(make_handler: MakeHandler, tmp_path: Path) -> None:
    handler = make_handler("classification")
    [(status, card)] = handle(handler, [{}], [DESCRIBE], tmp_path / "classification")
    assert "model-config.yaml" in card["files"]
    assert status == 200
    assert (card["task"], card["backend"], card["precision"]) == ("classification", "colour_classifier", "fp32")
    assert (card["device"], card["labels"], card["num_classes"]) == ("cpu", COLOURS, 3)
    assert card["explanations"]["method"]["enum"] == ["occlusion"]


@pytest.mark.parametrize(
    ("rows", "headers"),
    [
        ([{"body": b""}], [DESCRIBE]),
        ([{"body": png(RED)}], [DESCRIBE]),
        ([{}], [{}]),
        ([{}], [{"describe": "False"}]),
        ([{}], [{"Describe": "True"}]),
        ([{}, {}], [DESCRIBE, DESCRIBE]),
        ([{}], [{**DESCRIBE, "Content-Type": "application/x-www-form-urlencoded"}]),
        ([{}], [{**DESCRIBE, "content-type": "Multipart/form-data; boundary=x"}]),
    ],
    ids=["no bytes", "an image", "no header", "False", "another case", "two", "an empty form", "empty multipart"],
)
def test_a_request_of_a_client_is_no_describe_job(rows: list[dict[str, Any]], headers: list[dict[str, Any]]) -> None:
    assert not is_describe_job(rows, headers)


def test_a_client_that_sends_the_header_gets_its_prediction_and_so_do_its_neighbours(make_handler: MakeHandler) -> None:
    rows = [{"body": png(RED)}, {"body": png(RED)}]
    expected = handle(make_handler("classification"), rows, [{}, {}])
    assert handle(make_handler("classification"), rows, [DESCRIBE, {}]) == expected


def test_options_have_the_defaults_of_the_archive_and_their_bounds(tmp_path: Path) -> None:
    card = card_of(write_model_dir(tmp_path, "classification", options={"top_k": 2}))
    assert card["options"] == {"top_k": {"type": "integer", "default": 2, "minimum": 1, "maximum": 1000}}
    detector = card_of(write_model_dir(tmp_path / "detector", "detection"), methods=())
    assert list(detector["options"]) == list(DetectionOptions.model_fields)
    assert "explanations" not in detector


def test_files_are_hashed_as_they_are_without_bytecode(tmp_path: Path) -> None:
    folder = write_model_dir(tmp_path, "classification")
    (folder / "artifact").write_bytes(b"weights")
    (folder / "package" / "__pycache__").mkdir(parents=True)
    (folder / "package" / "__pycache__" / "a.pyc").write_bytes(b"x")
    (folder / "package" / "a.py").write_bytes(b"")
    files = card_of(folder)["files"]
    assert list(files) == ["artifact", "labels.json", "model-config.yaml", "package/a.py"]
    assert files["artifact"] == {"bytes": 7, "sha256": hashlib.sha256(b"weights").hexdigest()}


def test_the_card_says_what_was_verified(tiny_classifier: TinyModel) -> None:
    folder = tiny_classifier.folders["openvino"]
    card = card_of(folder)
    report = tiny_classifier.reports["openvino"]
    assert card["verification"]["measured"] == report["measured"]
    assert card["verification"]["artifact_sha256"] == report["artifact_sha256"]
    assert {"python", "torch", "openvino", "torchserve"} <= card["versions"].keys()
    assert card["preprocessing"]["resize"]["size"] == [32, 32]


def test_the_timing_is_that_of_the_chosen_candidate(tmp_path: Path) -> None:
    folder = write_model_dir(tmp_path, "classification")
    slow = {"verdict": "verified", "images_per_s": {"8": 1.0}}
    fast = {"verdict": "chosen", "images_per_s": {"8": 2.0}, "speedup": None, "reason": ""}
    (folder / "verification.json").write_bytes(orjson.dumps({"passed": True, "candidates": [slow, fast]}))
    assert card_of(folder)["verification"] == {"passed": True, "timing": {"images_per_s": {"8": 2.0}}}


def test_a_manifest_names_the_model(tmp_path: Path) -> None:
    folder = write_model_dir(tmp_path, "classification")
    assert "name" not in card_of(folder)
    (folder / "MAR-INF").mkdir()
    (folder / "MAR-INF" / "MANIFEST.json").write_text('{"model": {"modelName": "colours", "modelVersion": "1.5"}}')
    assert (card_of(folder)["name"], card_of(folder)["version"]) == ("colours", "1.5")


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_verification_is_named(tmp_path: Path, text: str) -> None:
    folder = write_model_dir(tmp_path, "classification")
    (folder / "verification.json").write_text(text)
    with pytest.raises(ConfigError, match=r"verification\.json"):
        card_of(folder)


def test_a_worker_lists_the_methods_of_its_backend(tiny_classifier: TinyModel) -> None:
    handler = ImageClassificationHandler()
    handler.load(tiny_classifier.folders["eager"], CPU)
    [(_, card)] = handle(handler, [{}], [DESCRIBE], tiny_classifier.folders["eager"])
    assert card["explanations"]["method"]["enum"] == ["occlusion", "integrated_gradients", "saliency"]
