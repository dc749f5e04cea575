"""From a folder of real pictures to a served, verified model, and to a folder for a phone, by four commands."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from e2e.conftest import ROOT, serve
from sklearn.datasets import load_digits

MOST = 40  # pictures of a class: the rest of the set is for a longer day
TRAINED = ROOT / "examples" / "digits_classification" / "weights.safetensors"


def run(command: str, *arguments: object, folder: Path | None = None) -> str:
    script = command if folder else str(ROOT / "scripts" / command)
    done = subprocess.run([sys.executable, script, *map(str, arguments)], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def handwriting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits that people wrote, of scikit-learn: black on white, unlike those that the first weights know."""
    folder, counts = tmp_path_factory.mktemp("handwriting"), Counter[int]()
    digits = load_digits()
    for pixels, label in zip(digits.images, digits.target, strict=True):
        if counts[label] < MOST:
            place = folder / str(label)
            place.mkdir(exist_ok=True)
            picture = PIL.Image.fromarray((255 - pixels * 15.9).astype(np.uint8))
            picture.resize((64, 64), PIL.Image.Resampling.BICUBIC).save(place / f"{counts[label]:02}.png")
            counts[label] += 1
    return folder


def test_a_folder_of_pictures_is_served_and_leaves_for_a_phone(handwriting: Path, tmp_path: Path) -> None:
    model, store, phone = tmp_path / "handwriting", tmp_path / "store", tmp_path / "phone"
    options = ("--size", 64, "--epochs", 4, "--augment", "light", "--no-flip", "--weights", TRAINED)
    trained = run("train_model.py", handwriting, "--model", "mobilenet_v3_small", *options, "--output", model, "--json")
    assert json.loads(trained)["test_accuracy"] > 0.9

    places = ("--model-store", store, "--exports", tmp_path / "exports")
    chosen = ("--backend", "openvino", "--precision", "fp32")
    built = json.loads(run("build_model.py", model / "recipe.yaml", *chosen, *places, "--json"))
    assert built["chosen"]["verdict"] == "chosen"

    server = tmp_path / "server"
    server.mkdir()
    with serve([store / "handwriting.mar"], server):
        config = server / "config.properties"
        answers = run("predict_images.py", "handwriting", model / "heldout", "--json", "--config", config)
    rows = [json.loads(line) for line in answers.splitlines()]
    right = [row["classes"][0]["label"] == Path(row["file"]).parent.name for row in rows]
    assert len(right) == len(list((model / "heldout").rglob("*.png")))
    assert sum(right) / len(right) > 0.9

    run("export_edge.py", model / "recipe.yaml", "--format", "ort", "--output", phone)
    golden = json.loads((phone / "golden.json").read_text())
    answer = json.loads(run("predict.py", "golden.png", folder=phone))
    assert answer["classes"][0]["class_id"] == golden["found"][0]["class_id"]
