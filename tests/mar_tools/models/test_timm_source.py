"""timm's models against timm itself: its transforms, its labels, its weights."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import timm
import timm.data
import torch
import yaml
from fakes import generate_image
from safetensors.torch import save_file
from torch import nn

from mar_tools.exporting.export import export_model
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import Recipe, read_recipe
from mar_tools.models.sources.timm import preprocessing_of_data_config
from vision_serving.backends import load_backend
from vision_serving.config import BackendConfig
from vision_serving.errors import ConfigError
from vision_serving.pictures.resizing import preprocess_images

SMALL = "resnet10t.c3_in1k"  # 176 pixels
SIZES_HW = [(480, 640), (640, 480), (333, 500), (100, 130), (231, 700), (500, 501)]


def recipe_of(folder: Path, labels: str = "auto", **model: Any) -> Recipe:
    path = folder / "recipe.yaml"
    document = {"name": "m", "task": "classification", "labels": labels}
    path.write_text(yaml.safe_dump({**document, "model": {"source": "timm", "weights": "random", **model}}))
    return read_recipe(path)


def data_config(**changes: Any) -> dict[str, Any]:
    colours = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.3)}
    form = {"input_size": (3, 112, 112), "interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "center"}
    return {**colours, **form, **changes}


def with_timm(image: np.ndarray[Any, Any], config: dict[str, Any]) -> np.ndarray[Any, Any]:
    """The pixels of timm's own transform before it scales and normalises."""
    transform = timm.data.create_transform(**config, is_training=False, normalize=False)
    pixels: np.ndarray[Any, Any] = transform(PIL.Image.fromarray(image)).permute(1, 2, 0).numpy()
    return pixels


CONFIGS = {
    "center": data_config(),
    "center, all of the shorter side": data_config(crop_pct=1.0),
    "center, not square": data_config(input_size=(3, 96, 160)),
    "squash": data_config(crop_mode="squash", input_size=(3, 96, 160)),
    "border": data_config(crop_mode="border"),
    "border, whole": data_config(crop_mode="border", crop_pct=1.0, input_size=(3, 96, 160)),
    "bilinear": data_config(interpolation="bilinear"),
    "lanczos": data_config(interpolation="lanczos"),
    "box": data_config(interpolation="box"),
    "nearest": data_config(interpolation="nearest"),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("size_hw", SIZES_HW, ids=str)
def test_pixels_are_those_of_timms_own_transform(config: dict[str, Any], size_hw: tuple[int, int]) -> None:
    image = generate_image(5, size_hw)
    expected = with_timm(image, config)
    found = preprocess_images([image], preprocessing_of_data_config(config)).pixels[0].numpy()
    assert found.shape == expected.shape
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 2  # torch's and Pillow's bicubic round in two passes each
    assert (difference > 1).mean() < 1e-4


@pytest.mark.parametrize(
    "name", ["resnet10t.c3_in1k", "vit_tiny_patch16_224.augreg_in21k_ft_in1k", "convnext_atto.d2_in1k"]
)
def test_the_data_configuration_of_a_model_is_taken_over(tmp_path: Path, name: str) -> None:
    network = timm.create_model(name, pretrained=False)
    config = timm.data.resolve_model_data_config(network)
    found = load_checkpoint(recipe_of(tmp_path, name=name)).preprocessing
    assert found == preprocessing_of_data_config(config)
    assert found.crop == tuple(config["input_size"][1:])
    assert found.resize.size == math.floor(config["input_size"][1] / config["crop_pct"])
    assert (found.interpolation, list(found.mean)) == (config["interpolation"], list(config["mean"]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_size": (1, 8, 8)}, "takes 1 channels"),
        ({"crop_mode": "other"}, "unknown crop_mode 'other'"),
    ],
    ids=["grey", "mode"],
)
def test_a_data_configuration_without_counterpart_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        preprocessing_of_data_config(data_config(**changes))


def test_a_size_among_the_arguments_is_the_size_of_the_pixels(tmp_path: Path) -> None:
    arguments = {"img_size": 64, "num_classes": 1000}
    recipe = recipe_of(tmp_path, name="vit_tiny_patch16_224", arguments=arguments)
    assert load_checkpoint(recipe).preprocessing.crop == (64, 64)


def test_labels_are_imagenets_where_the_number_of_classes_is(tmp_path: Path) -> None:
    labels = load_checkpoint(recipe_of(tmp_path, name=SMALL)).labels
    assert len(labels) == 1000
    assert labels[281].startswith("tabby")


def test_another_number_of_classes_needs_a_labels_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="labels: auto knows ImageNet's classes, this model has 7; give a file"):
        load_checkpoint(recipe_of(tmp_path, name=SMALL, arguments={"num_classes": 7}))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_the_weights_of_a_file_are_served_by_the_eager_archive(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(1)
    trained: nn.Module = timm.create_model("resnet10t", num_classes=3).eval()
    file = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(trained.state_dict(), file)
    (tmp_path / "labels.json").write_text('["a", "b", "c"]')
    recipe = recipe_of(tmp_path, "labels.json", name=SMALL, weights=file.name, arguments={"num_classes": 3})
    checkpoint = load_checkpoint(recipe)
    folder = export_model(recipe, checkpoint, "eager", "fp32", tmp_path / "exports")
    pixels = preprocess_images([generate_image(1, (200, 250))], checkpoint.preprocessing).pixels
    found = load_backend("eager", folder / "model", BackendConfig(), torch.device("cpu")).infer(pixels)["logits"]
    config = timm.data.resolve_model_data_config(trained)
    mean, std = torch.tensor(config["mean"]).view(3, 1, 1), torch.tensor(config["std"]).view(3, 1, 1)
    with torch.inference_mode():
        expected = trained((pixels.permute(0, 3, 1, 2) / 255 - mean) / std)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"name": "resnet51x"}, "unknown timm model 'resnet51x'"),
        ({"name": "hf-hub:timm/resnet18"}, "unknown timm model"),
        ({"name": "resnet18.no_such_tag"}, "cannot be built"),
        ({"name": "resnet18", "weights": "a1_in1k"}, "a tag goes into the name"),
        ({"name": "resnet18", "arguments": {"depths": 3}}, "cannot be built"),
    ],
    ids=["name", "hub", "tag", "weights", "arguments"],
)
def test_a_timm_model_that_cannot_be_had_is_refused(tmp_path: Path, model: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_checkpoint(recipe_of(tmp_path, **model))


def test_published_weights_that_cannot_be_downloaded_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match=r"cannot get the published weights of timm model .* --weights FILE"):
        load_checkpoint(recipe_of(tmp_path, name=SMALL, weights="pretrained"))


def test_a_model_of_gray_pictures_needs_its_preprocessing_stated(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, name=SMALL, arguments={"in_chans": 1})
    with pytest.raises(ConfigError, match="of 3 channels, and `in_chans` is 1; state `preprocessing`"):
        load_checkpoint(recipe)
