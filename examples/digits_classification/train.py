"""Train a MobileNetV3-Small on drawn digits; write weights, figures and samples.

From the repository's root:

    python examples/digits_classification/train.py
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.models import mobilenet_v3_small

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.digits import LABELS, Digits, load_digit_split
from examples.digits_classification.images import draw_example, draw_picture
from examples.training import (
    DrawnDataset,
    describe_environment,
    fit,
    normalise,
    parse_arguments,
    prepare_torch,
    save_weights,
    write_json,
)

FOLDER = Path(__file__).resolve().parent
EPOCHS = 60
TEST_DRAWINGS = 4
TEST_SEED = 1_000_003  # far from any training seed; the same test pictures for all of them
BATCH_SIZE = 32
LEARNING_RATE = 2e-3
SAMPLES = {"zero": 0, "three": 3, "seven": 7, "eight": 8}


def main() -> None:
    arguments = parse_arguments(__doc__, EPOCHS, FOLDER)
    train_digits, test_digits = load_digit_split()
    prepare_torch(arguments.seed)
    model = mobilenet_v3_small(num_classes=len(LABELS)).to(memory_format=torch.channels_last)
    batches = load_pictures(train_digits, arguments.epochs, arguments.seed)
    seconds = fit(model, batches, compute_loss, LEARNING_RATE)
    figures = {
        "accuracy": round(evaluate(model, load_pictures(test_digits, TEST_DRAWINGS, TEST_SEED)), 4),
        "train_digits": len(train_digits),
        "test_digits": len(test_digits),
        "test_pictures": TEST_DRAWINGS * len(test_digits),
        "seed": arguments.seed,
        "epochs": arguments.epochs,
        "training_s": round(seconds),
        **describe_environment(),
    }
    write_example(arguments.output, model, figures, test_digits)
    print("\n".join(f"{name:14} {value}" for name, value in figures.items()))


def load_pictures(digits: Digits, drawings: int, seed: int) -> DataLoader[Any]:
    """Every digit drawn that many times, in batches that mix the classes."""
    pictures = DrawnDataset(partial(draw_example, digits=digits), drawings * len(digits), seed)
    return DataLoader(pictures, BATCH_SIZE, num_workers=2)


def compute_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    images, class_ids = batch
    return nn.functional.cross_entropy(model(normalise(images)), class_ids, label_smoothing=0.05)


@torch.inference_mode()
def evaluate(model: nn.Module, batches: DataLoader[Any]) -> float:
    """The share of pictures whose best class is the true one."""
    hits = torch.cat([model(normalise(images)).argmax(dim=1) == class_ids for images, class_ids in batches])
    return float(hits.float().mean())


def write_example(folder: Path, model: nn.Module, figures: dict[str, Any], test_digits: Digits) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(model, folder / "weights.safetensors")
    write_json(folder / "results.json", figures)
    write_json(folder / "labels.json", LABELS)
    write_samples(folder / "samples", test_digits)


def write_samples(folder: Path, digits: Digits) -> None:
    """Test digits on pictures of their own sizes, each named after its digit."""
    folder.mkdir(exist_ok=True)
    for name, class_id in SAMPLES.items():
        number = int(np.flatnonzero(digits.class_ids == class_id)[1])
        draw_picture(digits.masters[number], np.random.default_rng([TEST_SEED, class_id])).save(folder / f"{name}.png")


if __name__ == "__main__":
    main()
