"""Vectors of the libraries' own networks: the weights are those of a classifier."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import timm
import torch
import torchvision
import transformers
import yaml
from conftest import build_without_timing
from fakes import encode_image, generate_image
from torch import Tensor, nn
from torchvision.transforms._presets import ImageClassification

from mar_tools.archives.archive import extract_archive
from mar_tools.exporting.export import export_model
from mar_tools.exporting.export_folders import load_reference
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import Recipe, read_recipe
from mar_tools.verification.observations import load_handler
from vision_serving.errors import ConfigError
from vision_serving.graphs.construction import build_graph
from vision_serving.graphs.pixels import Normalize
from vision_serving.predictions import Embedding
from vision_serving.requests.payload import Payload

SIZE = {"resize": {"mode": "exact", "size": [64, 64]}}


def read(folder: Path, model: dict[str, Any]) -> Recipe:
    document = {"name": "m", "task": "embedding", "model": model, "preprocessing": SIZE, "verification": {"count": 2}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(document))
    return read_recipe(folder / "recipe.yaml")


def make_torchvision(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    network = torchvision.models.mobilenet_v3_small(num_classes=3)
    torch.save(network.state_dict(), folder / "w.pth")
    network.classifier[3] = nn.Identity()
    arguments = {"num_classes": 3}
    return network, {"source": "torchvision", "name": "mobilenet_v3_small", "arguments": arguments, "weights": "w.pth"}


def make_timm(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    network = timm.create_model("resnet10t.c3_in1k", num_classes=3)
    torch.save(network.state_dict(), folder / "w.pth")
    network.reset_classifier(0)
    model = {"source": "timm", "name": "resnet10t.c3_in1k", "arguments": {"num_classes": 3}, "weights": "w.pth"}
    return network, model


class FirstToken(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.network(images).last_hidden_state
        return tokens[:, 0]


def make_huggingface(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Its pooled output is the first token."""
    config = transformers.Dinov2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=64, patch_size=16, mlp_ratio=2
    )
    network = transformers.Dinov2Model(config)
    network.save_pretrained(folder / "dino")
    return FirstToken(network), {"source": "huggingface", "name": "dino", "weights": "pretrained"}


@pytest.mark.parametrize("make", [make_torchvision, make_timm, make_huggingface])
def test_a_vector_is_what_the_library_gives_without_its_head(tmp_path: Path, make: Any) -> None:
    torch.manual_seed(0)
    network, model = make(tmp_path)
    recipe = read(tmp_path, model)
    checkpoint = load_checkpoint(recipe)
    assert checkpoint.labels == []
    folder = export_model(recipe, checkpoint, "eager", "fp32", tmp_path / "exports")
    rebuilt = load_reference(folder)
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        found = build_graph(rebuilt.network, "embedding", rebuilt.preprocessing, rebuilt.source.output)(pixels)
        expected = network.eval()(Normalize(rebuilt.preprocessing)(pixels))
    assert found.keys() == {"embedding"}
    torch.testing.assert_close(found["embedding"], expected, atol=1e-5, rtol=1e-4)


EXTRACTOR = """
from torchvision.models import mobilenet_v3_small
from torchvision.models.feature_extraction import create_feature_extractor


def make():
    return create_feature_extractor(mobilenet_v3_small(), {"features.3": "map"})
"""
Program = Callable[[PIL.Image.Image], Tensor]  # what an author runs: a picture -> its vector


def write_extractor(folder: Path) -> tuple[Program, dict[str, Any]]:
    """torchvision's own transforms, and the mean of its map."""
    scope: dict[str, Any] = {}
    exec(compile(EXTRACTOR, "extractor.py", "exec"), scope)
    (folder / "extractor.py").write_text(EXTRACTOR)
    network = scope["make"]().eval()
    torch.save(network.state_dict(), folder / "w.pth")
    transform = ImageClassification(crop_size=64, resize_size=80)
    form = {"resize": {"mode": "shortest_edge", "size": 80}, "crop": [64, 64]}
    model = {"source": "python", "file": "extractor.py", "class": "make", "weights": "w.pth"}
    keys = {"model": {**model, "output": {"pool": "mean"}}, "preprocessing": form}
    return lambda picture: network(transform(picture)[None])["map"].mean((2, 3)), keys


def write_timm(folder: Path) -> tuple[Program, dict[str, Any]]:
    """As timm's page of a model says: `num_classes=0`, and the transform of its data configuration."""
    name = "mobilenetv3_small_050.lamb_in1k"
    network = timm.create_model(name, num_classes=0).eval()
    torch.save(network.state_dict(), folder / "w.pth")
    transform: Any = timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)
    model = {"source": "timm", "name": name, "arguments": {"num_classes": 0}, "weights": "w.pth"}
    return lambda picture: network(transform(picture)[None]), {"model": model}


ENCODER: dict[str, Any] = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
}  # fmt: skip
CLIP_SIZE: Any = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}
IMAGES = {"image_size": 64, "patch_size": 16}


def write_huggingface(folder: Path, network: Any, processor: Any) -> dict[str, Any]:
    for part in (network.eval(), processor):
        part.save_pretrained(folder / "published")
    return {"model": {"source": "huggingface", "name": "published", "weights": "pretrained"}}


def write_image_half(folder: Path) -> tuple[Program, dict[str, Any]]:
    """As the page of CLIP says: the image processor, and `image_embeds`."""
    network: Any = transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(**ENCODER, **IMAGES, projection_dim=12)
    )
    processor: Any = transformers.CLIPImageProcessor(**CLIP_SIZE)
    keys = write_huggingface(folder, network, processor)
    return lambda picture: network(**processor(picture, return_tensors="pt")).image_embeds, keys


def write_clip(folder: Path) -> tuple[Program, dict[str, Any]]:
    """A model of pictures and texts, which is asked for the features of a picture."""
    texts = {**ENCODER, "vocab_size": 100}
    config = transformers.CLIPConfig(text_config=texts, vision_config={**ENCODER, **IMAGES}, projection_dim=12)
    network: Any = transformers.CLIPModel(config)
    processor: Any = transformers.CLIPImageProcessor(**CLIP_SIZE)
    keys = write_huggingface(folder, network, processor)
    return lambda picture: features_of(network, processor, picture), keys


def write_siglip(folder: Path) -> tuple[Program, dict[str, Any]]:
    """Another one, whose pooled output is not projected."""
    config = transformers.SiglipConfig(text_config={**ENCODER, "vocab_size": 100}, vision_config={**ENCODER, **IMAGES})
    network: Any = transformers.SiglipModel(config)
    processor: Any = transformers.SiglipImageProcessor(size={"height": 64, "width": 64})
    keys = write_huggingface(folder, network, processor)
    return lambda picture: features_of(network, processor, picture), keys


def features_of(network: Any, processor: Any, picture: PIL.Image.Image) -> Tensor:
    found = network.get_image_features(**processor(picture, return_tensors="pt"))
    features: Tensor = getattr(found, "pooler_output", found)
    return features


@pytest.mark.parametrize("write", [write_extractor, write_timm, write_image_half, write_clip, write_siglip])
def test_an_archive_answers_with_the_vector_of_the_author_s_program(tmp_path: Path, write: Any) -> None:
    torch.manual_seed(0)
    program, keys = write(tmp_path)
    document = {"name": "m", "task": "embedding", "verification": {"count": 2}, **keys}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(document))
    archive = build_without_timing(tmp_path / "recipe.yaml", "openvino", tmp_path / "store")
    extract_archive(archive, tmp_path / "served")
    pixels = generate_image(1, (100, 130))
    (outcome,) = load_handler(tmp_path / "served").predict([Payload(images=(encode_image(pixels),), options={})])
    (item,) = outcome.items
    assert isinstance(item, Embedding)
    with torch.inference_mode():
        expected = program(PIL.Image.fromarray(pixels))[0]
    spread = float(expected.std())
    assert spread > 0
    assert item.embedding == pytest.approx(expected.tolist(), abs=0.02 * spread)  # levels are rounded when resized


def test_a_network_without_a_last_layer_to_take_off_says_so(tmp_path: Path) -> None:
    recipe = read(tmp_path, {"source": "torchvision", "name": "squeezenet1_1", "weights": "random"})
    with pytest.raises(ConfigError, match="SqueezeNet has no linear layer at its end"):
        load_checkpoint(recipe)


def test_several_vectors_an_image_need_a_pool(tmp_path: Path) -> None:
    (tmp_path / "map.py").write_text("from torch import nn\n\n\ndef make():\n    return nn.Conv2d(3, 4, 8, 8)\n")
    model = {"source": "python", "file": "map.py", "class": "make", "weights": "random"}
    recipe = read(tmp_path, model)
    with pytest.raises(
        ConfigError, match=r"gives \(1, 4, 8, 8\) and not one vector an image; say `output: {pool: mean}`"
    ):
        export_model(recipe, load_checkpoint(recipe), "eager", "fp32", tmp_path / "exports")
