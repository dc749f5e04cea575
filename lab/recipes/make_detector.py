"""Random weights for SSDLite that find about as many things in a picture as trained ones do.

    python lab/recipes/make_detector.py
    python scripts/build_model.py lab/recipes/ssdlite320.yaml

A random detector is sure of hundreds of boxes in every picture, and sorting them out would be most of what is measured.
A bias towards the background class makes most scores small, as training does; the spread of the class scores is then
found by bisection: so many boxes reach the score threshold.
"""

from pathlib import Path

import orjson
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mar_tools.command_line import ROOT
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.example_pixels import load_pixels
from mar_tools.models.recipes import read_recipe

FOLDER = Path(__file__).resolve().parent
RECIPE = ROOT / "recipes" / "ssdlite320_mobilenet_v3_large.yaml"
BOXES = 10.0  # of a picture
SCORE_THRESHOLD = 0.5  # what TorchServe's object_detector keeps
PICTURES = 16
BACKGROUND_BIAS = 7.0  # a class scores exp(-7) of the background, below torchvision's own threshold of 0.001
STEPS = 12


def main() -> None:
    checkpoint = load_checkpoint(read_recipe(RECIPE, weights="random"))
    network = checkpoint.network
    pictures = load_pixels(PICTURES, checkpoint.preprocessing).permute(0, 3, 1, 2) / 255
    head = network.get_submodule("head.classification_head")
    layers = [level[-1] for level in head.get_submodule("module_list").children()]  # type: ignore[index]
    for layer in layers:
        layer.bias.data.view(-1, head.num_columns)[:, 0] += BACKGROUND_BIAS
    share = find_spread(network, [layer.weight.data for layer in layers], pictures)
    print(f"class weights times {share:.3g}: {count_boxes(network, pictures):.1f} boxes a picture")
    save_file(network.state_dict(), FOLDER / "ssdlite320.safetensors")
    (FOLDER / "ssdlite320-labels.json").write_bytes(orjson.dumps(checkpoint.labels))


def find_spread(network: nn.Module, weights: list[Tensor], pictures: Tensor) -> float:
    """Return what the weights are multiplied with, which is done."""
    low, high, current = 0.0, 1.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        for values in weights:
            values *= middle / current
        current = middle
        low, high = (low, middle) if count_boxes(network, pictures) > BOXES else (middle, high)
    return current


def count_boxes(network: nn.Module, pictures: Tensor) -> float:
    with torch.inference_mode():
        found = network(list(pictures))
    return sum(int((entry["scores"] >= SCORE_THRESHOLD).sum()) for entry in found) / len(pictures)


if __name__ == "__main__":
    main()
