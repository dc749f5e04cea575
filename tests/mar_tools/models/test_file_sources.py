"""TorchScript files, and networks whose answers need an output format, from recipe to archive."""

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import yaml
from torch import Tensor, nn

from mar_tools.drafting.drafts import Hints
from mar_tools.drafting.forms import draft_recipe
from mar_tools.exporting.export import export_model
from mar_tools.exporting.export_folders import load_reference
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.example_pixels import load_pixels
from mar_tools.models.recipes import Recipe, read_recipe
from mar_tools.verification.gate import verify_export
from mar_tools.verification.observations import load_handler
from vision_serving.config import DeviceType, Precision
from vision_serving.errors import BackendError, ConfigError
from vision_serving.options import Task

EXACT_32 = {"resize": {"mode": "exact", "size": [32, 32]}}


class Features(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, 8), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(images)
        return features


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = Features()
        self.head = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images).mean((2, 3)))
        return logits


class YoloHead(nn.Module):
    """(N, Q, 5 + 3) before the sigmoid of the scores, beside its features: two values."""

    def __init__(self) -> None:
        super().__init__()
        self.features = Features()
        self.head = nn.Conv2d(8, 8, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(images)
        rows = self.head(features).flatten(2).transpose(1, 2)
        return features, torch.cat((rows[..., :4].sigmoid(), rows[..., 4:]), dim=-1)


YOLO = {"format": "yolo", "layout": "rows", "objectness": True, "normalized": True, "activation": "sigmoid", "index": 1}


def script_recipe(folder: Path, network: nn.Module, task: Task = "classification", **model: Any) -> Recipe:
    """A recipe of a traced network, its file and labels beside it."""
    folder.mkdir(exist_ok=True)
    example = torch.randn(2, 3, 32, 32)
    script = torch.jit.trace(network.eval(), example)  # type: ignore[no-untyped-call]
    script.save(str(folder / "model.pt"))
    (folder / "labels.json").write_text('["cat", "dog", "bird"]')
    section = {"source": "torchscript", "file": "model.pt", **model}
    document = {"name": "m", "task": task, "model": section, "labels": "labels.json", "preprocessing": EXACT_32}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**document, "verification": {"count": 4}}))
    return read_recipe(folder / "recipe.yaml")


def test_a_script_is_served_with_the_weights_inside_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Classifier()
    recipe = script_recipe(tmp_path / "recipe", network)
    checkpoint = load_checkpoint(recipe)
    folder = export_model(recipe, checkpoint, "eager", "fp32", tmp_path / "exports")
    (tmp_path / "recipe" / "model.pt").unlink()
    pixels = load_pixels(3, checkpoint.preprocessing)
    found = load_handler(folder).backend.infer(pixels)["logits"]
    mean, std = (
        torch.tensor(values).view(3, 1, 1) for values in (checkpoint.preprocessing.mean, checkpoint.preprocessing.std)
    )
    with torch.inference_mode():
        expected = network((pixels.permute(0, 3, 1, 2) / 255 - mean) / std)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_archive_of_a_script_holds_its_weights_once(tmp_path: Path) -> None:
    recipe = script_recipe(tmp_path / "recipe", Classifier())
    folder = export_model(recipe, load_checkpoint(recipe), "eager", "fp32", tmp_path / "exports")
    assert (folder / "model" / "model.pt").read_bytes() == (tmp_path / "recipe" / "model.pt").read_bytes()
    assert (folder / "model" / "model.safetensors").stat().st_size < 100


@pytest.mark.parametrize(
    ("network", "task", "model"),
    [(Classifier(), "classification", {}), (YoloHead(), "detection", {"output": YOLO})],
    ids=["classifier", "yolo"],
)
def test_a_script_is_exported_and_verified(
    tmp_path: Path, network: nn.Module, task: Task, model: dict[str, Any]
) -> None:
    recipe = script_recipe(tmp_path / "recipe", network, task, **model)
    checkpoint = load_checkpoint(recipe)
    export_model(recipe, checkpoint, "eager", "fp32", tmp_path / "exports")
    report = verify_export(export_model(recipe, checkpoint, "openvino", "fp32", tmp_path / "exports"))
    assert report["passed"], report["failures"]


@pytest.mark.parametrize("source", ["torchscript", "onnx"])
@pytest.mark.parametrize("weights", ["random", "other.pth"])
def test_weights_beside_a_file_that_holds_them_are_refused(tmp_path: Path, source: str, weights: str) -> None:
    with pytest.raises(ConfigError, match=f"source '{source}' does not take 'weights': they are inside its file"):
        script_recipe(tmp_path, Classifier(), source=source, weights=weights)


def test_weights_of_the_command_line_are_refused_too(tmp_path: Path) -> None:
    script_recipe(tmp_path, Classifier())
    with pytest.raises(ConfigError, match="does not take 'weights'"):
        read_recipe(tmp_path / "recipe.yaml", weights="random")


@pytest.mark.parametrize(
    "content", [None, b"", b"PK garbage", b"garbage " * 20], ids=["missing", "empty", "zip", "text"]
)
def test_what_is_no_script_is_refused(tmp_path: Path, content: bytes | None) -> None:
    recipe = script_recipe(tmp_path, Classifier())
    (tmp_path / "model.pt").unlink()
    if content is not None:
        (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(ConfigError, match=r"model\.pt: (no such file|no TorchScript file)"):
        load_checkpoint(recipe)


def test_a_state_dict_is_no_script(tmp_path: Path) -> None:
    recipe = script_recipe(tmp_path, Classifier())
    torch.save(Classifier().state_dict(), tmp_path / "model.pt")
    with pytest.raises(ConfigError, match=r"write one with torch\.jit\.save"):
        load_checkpoint(recipe)


@pytest.mark.parametrize(
    ("key", "message"), [("preprocessing", "preprocessing: auto needs"), ("labels", "`labels` is missing, and")]
)
def test_a_script_tells_neither_preprocessing_nor_labels(tmp_path: Path, key: str, message: str) -> None:
    script_recipe(tmp_path, Classifier())
    document = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**document, key: "auto"}))
    with pytest.raises(ConfigError, match=message):
        load_checkpoint(read_recipe(tmp_path / "recipe.yaml"))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"format": "yolo", "layout": "rows", "objectness": False}, "output format 'yolo' is not for classification"),
        (
            {"format": "probabilities", "layout": "rows"},
            r"does not take \['layout'\]; it takes \['activation', 'index'\]",
        ),
        ({"format": "probabilities", "index": 0, "layout": "rows"}, r"does not take \['layout'\]"),
        ({"layuot": "rows"}, "unknown key 'model.output.layuot'"),
        ({"format": "v8"}, "'model.output.format'"),
    ],
    ids=["task", "key of another", "key of another beside its own", "unknown key", "unknown format"],
)
def test_an_output_that_does_not_fit_is_refused_with_the_recipe(
    tmp_path: Path, output: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        script_recipe(tmp_path, Classifier(), output=output)


def test_a_library_that_knows_its_outputs_takes_no_format(tmp_path: Path) -> None:
    output = {"index": 0}
    with pytest.raises(ConfigError, match=r"output of source 'timm' takes \['activation', 'pool'\], not \['index'\]"):
        script_recipe(
            tmp_path, Classifier(), source="timm", file=None, name="resnet18", weights="random", output=output
        )


def onnx_recipe(folder: Path, network: nn.Module | None = None, task: Task = "classification", **model: Any) -> Recipe:
    """As a user would export it: float images, a dynamic batch, the weights beside it."""
    torch.manual_seed(0)
    network = (network or Classifier()).eval()
    recipe = script_recipe(folder, network, task, source="onnx", file="model.onnx", **model)
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    example = (torch.randn(2, 3, 32, 32),)
    torch.onnx.export(network, example, folder / "model.onnx", dynamic_shapes=shapes, verbose=False)
    return recipe


@pytest.mark.parametrize(
    ("network", "task", "model"),
    [(Classifier, "classification", {}), (YoloHead, "detection", {"output": YOLO})],
    ids=["classifier", "detector"],
)
def test_an_onnx_file_is_served_as_it_is_and_by_every_backend_that_takes_one(
    tmp_path: Path, network: type[nn.Module], task: Task, model: dict[str, Any]
) -> None:
    recipe = onnx_recipe(tmp_path, network(), task, **model)
    checkpoint = load_checkpoint(recipe)
    folders = [
        export_model(recipe, checkpoint, backend, "fp32", tmp_path / "exports")
        for backend in ("eager", "onnxruntime", "openvino")
    ]
    (tmp_path / "model.onnx").unlink()  # an archive is whole without it
    for folder in folders:
        report = verify_export(folder)
        assert report["passed"], report["failures"]
        assert report["measured"]["snr_db"] > 80
    assert load_reference(folders[0]).source.source == "onnx"


def test_the_reference_of_an_onnx_file_is_the_network_that_it_came_from(tmp_path: Path) -> None:
    network = Classifier()
    checkpoint = load_checkpoint(onnx_recipe(tmp_path, network))
    images = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(checkpoint.network(images), network(images), rtol=1e-4, atol=1e-5)


def test_a_backend_of_torch_networks_refuses_an_onnx_file(tmp_path: Path) -> None:
    recipe = onnx_recipe(tmp_path)
    with pytest.raises(BackendError, match="backend 'torchscript' needs a PyTorch network; the model is an ONNX file"):
        export_model(recipe, load_checkpoint(recipe), "torchscript", "fp32", tmp_path)


@pytest.mark.parametrize(
    ("backend", "precision", "device_type"),
    [("eager", "bf16", "cpu"), ("eager", "fp16", "cuda"), ("onnxruntime", "fp16", "cuda")],
)
def test_a_precision_that_an_onnx_file_would_not_be_computed_in_is_refused(
    tmp_path: Path, backend: str, precision: Precision, device_type: DeviceType
) -> None:
    recipe = onnx_recipe(tmp_path)
    with pytest.raises(BackendError, match=f"with the types that are in it, and not in {precision}; it has"):
        export_model(recipe, load_checkpoint(recipe), backend, precision, tmp_path / "exports", device_type)


def test_a_damaged_or_missing_onnx_file_is_refused(tmp_path: Path) -> None:
    recipe = onnx_recipe(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ConfigError, match=r"model\.onnx: no ONNX file"):
        load_checkpoint(recipe)
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(ConfigError, match=r"model\.onnx: no such file; `file` is looked up beside the recipe"):
        load_checkpoint(recipe)


def test_an_onnx_file_whose_weights_are_missing_names_their_file(tmp_path: Path) -> None:
    recipe = onnx_recipe(tmp_path)
    file = tmp_path / "model.onnx"
    onnx.save(onnx.load(file), file, save_as_external_data=True, location="model.onnx.data", size_threshold=100)
    assert load_checkpoint(recipe).labels
    (tmp_path / "model.onnx.data").rename(tmp_path / "other.data")
    with pytest.raises(ConfigError, match=r"its weights are in 'model\.onnx\.data', which is not beside it"):
        load_checkpoint(recipe)
    with pytest.raises(ConfigError, match=r"its weights are in 'model\.onnx\.data', which is not beside it"):
        draft_recipe(str(file), Hints())
