"""Vectors of the libraries' own networks: the weights are those of a classifier."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
import transformers
import yaml
from torch import Tensor, nn

from mar_tools.exporting.export import export_model
from mar_tools.exporting.export_folders import load_reference
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import Recipe, read_recipe
from vision_serving.errors import ConfigError
from vision_serving.graphs.construction import build_graph
from vision_serving.graphs.pixels import Normalize

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
