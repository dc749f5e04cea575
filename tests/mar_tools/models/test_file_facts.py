"""Files that take a fixed number of images, or images of another kind than float RGB, as exporters leave them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from fakes import encode_image, noise_image
from torch import Tensor, nn

from mar_tools.exporting.export import export_model
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import Recipe, read_recipe
from mar_tools.verification.gate import verify_export
from mar_tools.verification.observations import load_handler
from vision_serving.config import Precision
from vision_serving.errors import BackendError, ConfigError
from vision_serving.predictions import Classification
from vision_serving.requests.payload import Payload

FLOAT16_PAIRS: list[tuple[str, Precision]] = [
    ("eager", "fp32"),
    ("onnxruntime", "fp32"),
    ("onnxruntime", "int8"),
    ("openvino", "fp32"),
]
EXACT_32 = {"resize": {"mode": "exact", "size": [32, 32]}}


class Fixed(nn.Module):
    """Takes one number of images: its reshape says so, as those of many exporters do."""

    def __init__(self, size: int, channels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.size = size
        self.layers = nn.Sequential(nn.Conv2d(channels, 4, 3, 4), nn.ReLU())
        self.head = nn.Linear(4 * 8 * 8, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layers(images.float()).reshape(self.size, 4 * 8 * 8))
        return logits * 3


class Levels(nn.Module):
    """Takes pixels as they are, and normalises them itself."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Fixed(2)

    def forward(self, levels: Tensor) -> Tensor:
        logits: Tensor = self.network(levels.float() / 127.5 - 1)
        return logits


def write(folder: Path, network: nn.Module, example: Tensor, source: str, **changes: Any) -> Recipe:
    """A recipe of an exported network, with the file and labels beside it."""
    folder.mkdir(exist_ok=True)
    file = "model.onnx" if source == "onnx" else "model.pt"
    if source == "onnx":
        torch.onnx.export(network.eval(), (example,), folder / file, verbose=False, external_data=False, optimize=False)
    else:
        torch.jit.trace(network.eval(), example).save(str(folder / file))  # type: ignore[no-untyped-call]
    (folder / "labels.json").write_text('["cat", "dog", "bird"]')
    model = {"source": source, "file": file}
    document = {"name": "m", "task": "classification", "model": model, "labels": "labels.json", **changes}
    document = {"preprocessing": EXACT_32, "verification": {"count": 4}, **document}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(document))
    return read_recipe(folder / "recipe.yaml")


def scores_of(folder: Path, *images: bytes) -> list[list[float]]:
    (outcome,) = load_handler(folder).predict([Payload(images=images, options={"top_k": 3})])
    found = [
        {each.label: each.score for each in item.classes} for item in outcome.items if isinstance(item, Classification)
    ]
    assert len(found) == len(images)
    return [[scores[label] for label in ("cat", "dog", "bird")] for scores in found]


@pytest.mark.parametrize(("source", "size"), [("onnx", 1), ("torchscript", 2)])
def test_a_graph_of_a_fixed_batch_is_served_by_each_engine(tmp_path: Path, source: str, size: int) -> None:
    recipe = write(tmp_path / "recipe", Fixed(size), torch.rand(size, 3, 32, 32), source)
    checkpoint = load_checkpoint(recipe)
    images = [encode_image(noise_image(seed, (40, 50))) for seed in range(3)]
    expected: list[list[float]] = []
    for backend in ("eager", "onnxruntime", "openvino"):
        folder = export_model(recipe, checkpoint, backend, "fp32", tmp_path / "exports")
        report = verify_export(folder)
        assert report["passed"], report["failures"]
        found = scores_of(folder, *images)
        expected = expected or found
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.std(expected) > 0.01


class FirstAlone(nn.Module):
    """Answers the first image of a batch, as a network whose exporter kept `outputs[0:1]`."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(images.mean((2, 3)))
        return logits[:1]


class FirstOfFour(nn.Module):
    """The same of a fixed batch."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Fixed(4)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits[:1]


@pytest.mark.parametrize(("size", "says"), [(4, "takes 4 images"), (2, "takes 2 images"), (None, "takes any number")])
def test_a_graph_that_answers_the_first_image_alone_is_refused_before_anything_is_exported(
    tmp_path: Path, size: int | None, says: str
) -> None:
    recipe = write(tmp_path / "recipe", FirstAlone(), torch.rand(size or 2, 3, 32, 32), "onnx")
    if size is None:
        path = tmp_path / "recipe" / "model.onnx"
        model = onnx.load(path)
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
        onnx.save(model, path)
    with pytest.raises(ConfigError, match=rf"the file {says} .*answers one of them: for \d images it gives \(1, 3\)"):
        load_checkpoint(recipe)


def test_a_script_that_answers_the_first_image_alone_is_refused_too(tmp_path: Path) -> None:
    recipe = write(tmp_path / "recipe", FirstOfFour(), torch.rand(4, 3, 32, 32), "torchscript")
    with pytest.raises(ConfigError, match=r"the file takes 4 images at a time, and answers one .* gives \(1, 3\)"):
        load_checkpoint(recipe)


def test_a_graph_of_one_image_that_answers_the_first_is_right(tmp_path: Path) -> None:
    recipe = write(tmp_path / "recipe", FirstAlone(), torch.rand(1, 3, 32, 32), "onnx")
    folder = export_model(recipe, load_checkpoint(recipe), "eager", "fp32", tmp_path / "exports")
    scores_of(folder, *(encode_image(noise_image(seed, (40, 50))) for seed in range(3)))


OTHER_PRECISIONS = [("onnxruntime", "int8"), ("openvino", "int8"), ("openvino", "bf16")]


@pytest.mark.parametrize(
    ("source", "size", "pairs"),
    [
        ("onnx", 1, OTHER_PRECISIONS[:1]),
        pytest.param("onnx", 2, OTHER_PRECISIONS, marks=pytest.mark.lab),
        pytest.param("torchscript", 2, [*OTHER_PRECISIONS, ("torchscript", "bf16")], marks=pytest.mark.lab),
    ],
)
def test_a_graph_of_a_fixed_batch_has_other_precisions(
    tmp_path: Path, source: str, size: int, pairs: list[tuple[str, Precision]]
) -> None:
    recipe = write(tmp_path / "recipe", Fixed(size), torch.rand(size, 3, 32, 32), source)
    checkpoint = load_checkpoint(recipe)
    images = [encode_image(noise_image(seed, (40, 50))) for seed in range(3)]
    expected = scores_of(export_model(recipe, checkpoint, "eager", "fp32", tmp_path / "exports"), *images)
    for backend, precision in pairs:
        folder = export_model(recipe, checkpoint, backend, precision, tmp_path / "exports")
        report = verify_export(folder)
        assert report["passed"], report["failures"]
        np.testing.assert_allclose(scores_of(folder, *images), expected, atol=0.02)


@pytest.mark.parametrize("backend", ["aotinductor", "torch_compile"])
def test_what_reads_python_alone_refuses_a_script_at_once(tmp_path: Path, backend: str) -> None:
    recipe = write(tmp_path / "recipe", Fixed(2), torch.rand(2, 3, 32, 32), "torchscript")
    with pytest.raises(BackendError, match="the model is a TorchScript file; use openvino, onnxruntime or torchscript"):
        export_model(recipe, load_checkpoint(recipe), backend, "fp32", tmp_path / "exports")


class Half(nn.Module):
    """Computes in float16, as files for GPUs do."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Fixed(1).half()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network.head(self.network.layers(images).flatten(1)) * 3
        return logits


def test_a_file_of_float16_is_given_float16(tmp_path: Path) -> None:
    """Of a picture of level 51, with the mean and std that the recipe states."""
    form = {**EXACT_32, "mean": [0.5] * 3, "std": [0.25] * 3}
    recipe = write(tmp_path / "recipe", Half(), torch.rand(1, 3, 32, 32).half(), "onnx", preprocessing=form)
    checkpoint = load_checkpoint(recipe)
    with torch.inference_mode():
        logits = Half().eval()(torch.full((1, 3, 32, 32), (51 / 255 - 0.5) / 0.25).half()).float()
    level = encode_image(np.full((40, 40, 3), 51, np.uint8))
    for backend, precision in FLOAT16_PAIRS:
        folder = export_model(recipe, checkpoint, backend, precision, tmp_path / "exports")
        report = verify_export(folder)
        assert report["passed"], report["failures"]
        np.testing.assert_allclose(scores_of(folder, level)[0], logits.softmax(1)[0], atol=0.005)


def test_a_script_that_takes_any_batch_is_left_so(tmp_path: Path) -> None:
    class AnyBatch(Fixed):
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.head(self.layers(images).flatten(1))
            return logits

    recipe = write(tmp_path, AnyBatch(1), torch.rand(1, 3, 32, 32), "torchscript")
    assert load_checkpoint(recipe).source.fixed_batch is None


def test_a_file_of_uint8_is_given_pixels_as_they_are(tmp_path: Path) -> None:
    """Of a gray picture of level 51, whatever the mean and std of others are."""
    example = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
    recipe = write(tmp_path / "recipe", Levels(), example, "onnx")
    checkpoint = load_checkpoint(recipe)
    assert checkpoint.preprocessing.mean == (0.0, 0.0, 0.0)
    with torch.inference_mode():
        logits = Levels().eval()(torch.full((2, 3, 32, 32), 51, dtype=torch.uint8))
    level = encode_image(np.full((40, 40, 3), 51, np.uint8))
    for backend in ("eager", "onnxruntime", "openvino"):
        folder = export_model(recipe, checkpoint, backend, "fp32", tmp_path / "exports")
        assert verify_export(folder)["passed"]
        np.testing.assert_allclose(scores_of(folder, level)[0], logits.softmax(1)[0], atol=1e-4)


@pytest.mark.parametrize(
    ("example", "preprocessing", "message"),
    [
        (
            torch.rand(1, 3, 32, 32),
            {"resize": {"mode": "exact", "size": [24, 32]}},
            "images of 32 x 32 .* makes 24 x 32",
        ),
        (torch.rand(1, 1, 32, 32), EXACT_32, "takes 1 channels, `preprocessing` makes 3"),
        (
            torch.zeros(1, 3, 32, 32, dtype=torch.uint8),
            {**EXACT_32, "mean": [0.5, 0.5, 0.5]},
            r"takes pixels as they are \(uint8\) .* leave out `mean` and `std`",
        ),
    ],
    ids=["size", "channels", "normalised twice"],
)
def test_what_a_file_says_of_its_images_is_said_before_anything_is_exported(
    tmp_path: Path, example: Tensor, preprocessing: dict[str, Any], message: str
) -> None:
    recipe = write(tmp_path, Fixed(1, example.shape[1]), example, "onnx", preprocessing=preprocessing)
    with pytest.raises(ConfigError, match=message):
        load_checkpoint(recipe)
