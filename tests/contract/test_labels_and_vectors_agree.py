"""Gray pictures, independent scores and embeddings, exported and verified by each backend as its users would."""

from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from conftest import QUICK_BACKENDS
from fakes import encode_image, noise_image

from mar_tools.archives.golden_prediction import read_golden
from mar_tools.exporting.export import export_model
from mar_tools.models.checkpoints import Checkpoint, load_checkpoint
from mar_tools.models.recipes import Recipe, read_recipe
from mar_tools.verification.gate import verify_export
from mar_tools.verification.observations import load_handler
from vision_serving.answers.responses import encode_response
from vision_serving.config import Precision
from vision_serving.predictions import Classification, Embedding
from vision_serving.requests.payload import Payload

NETWORKS = '''
from torch import nn


class GrayLabels(nn.Module):
    """Gray images (N, 1, H, W) -> independent logits (N, 4)."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, 4)

    def forward(self, images):
        return self.head(self.layers(images)) * 20


class Vectors(nn.Module):
    """RGB images -> a map (N, 8, H, W)."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU())

    def forward(self, images):
        return self.layers(images)
'''
SIZE = {"resize": {"mode": "exact", "size": [32, 32]}}
RECIPES: dict[str, dict[str, Any]] = {
    "gray labels": {
        "task": "classification",
        "model": {"class": "GrayLabels", "output": {"activation": "sigmoid"}},
        "labels": "labels.json",
        "preprocessing": {**SIZE, "channels": 1, "mean": [0.5], "std": [0.5]},
        "options": {"score_threshold": 0.3, "class_thresholds": {"dog": 0.6}},
    },
    "vectors": {
        "task": "embedding",
        "model": {"class": "Vectors", "output": {"pool": "mean"}},
        "preprocessing": SIZE,
        "options": {"normalize": True},
    },
}


def make(folder: Path, name: str) -> tuple[Recipe, Checkpoint]:
    (folder / "networks.py").write_text(NETWORKS)
    (folder / "labels.json").write_text('["cat", "dog", "bird", "fish"]')
    recipe = RECIPES[name]
    model = {"source": "python", "file": "networks.py", "weights": "random", **recipe["model"]}
    document = {**recipe, "name": "m", "model": model, "verification": {"count": 4}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(document))
    read = read_recipe(folder / "recipe.yaml")
    return read, load_checkpoint(read)


@pytest.mark.parametrize("name", RECIPES)
def test_each_backend_is_verified_and_gives_the_same_answer(tmp_path: Path, name: str) -> None:
    recipe, checkpoint = make(tmp_path, name)
    bodies = []
    for backend in ("eager", *QUICK_BACKENDS):
        folder = export_model(recipe, checkpoint, backend, "fp32", tmp_path / "exports")
        report = verify_export(folder)
        assert report["passed"], report["failures"]
        handler = load_handler(folder)
        (outcome,) = handler.predict([Payload(images=(encode_image(noise_image(0, (40, 50))),), options={})])
        bodies.append(orjson.loads(encode_response(outcome).body))
        golden = read_golden(folder)
        assert golden is not None
        (outcome,) = handler.predict([Payload(images=(golden[0],), options=golden[1].options)])
        assert golden[1].find_differences(orjson.loads(encode_response(outcome).body)) == []
    values = [flatten(body) for body in bodies]
    assert len(values[0]) == (2 if name == "gray labels" else 8)
    for found in values[1:]:
        assert found == pytest.approx(values[0], abs=1e-4)


@pytest.mark.lab
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(
    ("backend", "precision"),
    [("openvino", "int8"), ("onnxruntime", "int8"), ("aotinductor", "bf16"), ("torch_compile", "fp32")],
)
def test_other_backends_and_precisions_are_verified(
    tmp_path: Path, name: str, backend: str, precision: Precision
) -> None:
    recipe, checkpoint = make(tmp_path, name)
    export_model(recipe, checkpoint, "eager", "fp32", tmp_path / "exports")
    folder = export_model(recipe, checkpoint, backend, precision, tmp_path / "exports")
    report = verify_export(folder)
    assert report["passed"], report["failures"]
    images = tuple(encode_image(noise_image(seed, (40, 50))) for seed in range(3))
    (outcome,) = load_handler(folder).predict([Payload(images=images, options={})])
    assert {type(item) for item in outcome.items} <= {Classification, Embedding}


def flatten(body: dict[str, Any]) -> list[float]:
    """The numbers of an answer: scores above their thresholds, or a vector."""
    return [entry["score"] for entry in body["classes"]] if "classes" in body else body["embedding"]
