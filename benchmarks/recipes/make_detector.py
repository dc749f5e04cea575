"""Random weights for SSDLite that find about as many things in a picture as trained ones do.

    python benchmarks/recipes/make_detector.py
    python scripts/build_model.py benchmarks/recipes/ssdlite320.yaml

A random detector is sure of hundreds of boxes in every picture, and sorting them out would be most of what is measured.
A bias towards the background class, found by bisection, leaves BOXES of them.
"""

from pathlib import Path

import orjson
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mar_tools.checkpoints import load_checkpoint
from mar_tools.command_line import ROOT
from mar_tools.images import load_pixels
from mar_tools.recipes import read_recipe

FOLDER = Path(__file__).resolve().parent
RECIPE = ROOT / "recipes" / "ssdlite320_mobilenet_v3_large.yaml"
BOXES = 10.0  # of a picture
SCORE_THRESHOLD = 0.5  # what TorchServe's object_detector keeps
PICTURES = 16
STEPS = 12
MOST_BIAS = 1000.0


def main() -> None:
    checkpoint = load_checkpoint(read_recipe(RECIPE, weights="random"))
    pictures = load_pixels(PICTURES, checkpoint.preprocessing).permute(0, 3, 1, 2) / 255
    backgrounds = background_biases(checkpoint.network)
    bias = find_bias(checkpoint.network, backgrounds, pictures)
    print(f"background bias {bias:.3g}: {count_boxes(checkpoint.network, pictures):.1f} boxes a picture")
    save_file(checkpoint.network.state_dict(), FOLDER / "ssdlite320.safetensors")
    (FOLDER / "ssdlite320-labels.json").write_bytes(orjson.dumps(checkpoint.labels))


def background_biases(network: nn.Module) -> list[Tensor]:
    """Views of the biases of the first class, which is the background, at each anchor of each level."""
    head = network.get_submodule("head.classification_head")
    layers = [level[-1] for level in head.get_submodule("module_list").children()]  # type: ignore[index]
    return [layer.bias.data.view(-1, head.num_columns)[:, 0] for layer in layers]


def find_bias(network: nn.Module, backgrounds: list[Tensor], pictures: Tensor) -> float:
    """Leaves it in the network."""
    low, high, current = 0.0, MOST_BIAS, 0.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        for background in backgrounds:
            background += middle - current
        current = middle
        low, high = (middle, high) if count_boxes(network, pictures) > BOXES else (low, middle)
    return current


def count_boxes(network: nn.Module, pictures: Tensor) -> float:
    with torch.inference_mode():
        found = network(list(pictures))
    return sum(int((entry["scores"] >= SCORE_THRESHOLD).sum()) for entry in found) / len(pictures)


if __name__ == "__main__":
    main()
