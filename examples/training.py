"""What both trainings share: the command line, drawn datasets, the optimisation loop and the files written."""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
TORCH_THREADS = 2


def parse_arguments(description: str | None, epochs: int, output: Path) -> argparse.Namespace:
    """seed, epochs and output; the caller's defaults are the ones behind the files in its folder."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="weights and training pictures (default: 0)")
    parser.add_argument("--epochs", type=int, default=epochs, help=f"default: {epochs}")
    parser.add_argument("--output", type=Path, default=output, help="folder to write (default: the example's own)")
    return parser.parse_args()


class DrawnDataset(Dataset[Any]):
    """Examples drawn on demand: number i of a seed is the same in every run, whoever loads it."""

    def __init__(self, draw_example: Callable[[int, np.random.Generator], Any], length: int, seed: int) -> None:
        self.draw_example = draw_example
        self.length = length
        self.seed = seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.draw_example(index, np.random.default_rng([self.seed, index]))


def prepare_torch(seed: int) -> None:
    torch.manual_seed(seed)
    torch.set_num_threads(TORCH_THREADS)


def normalise(images: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float with ImageNet's mean and standard deviation removed."""
    mean, std = (torch.tensor(values) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return ((images / 255 - mean) / std).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def fit(
    model: nn.Module, batches: DataLoader[Any], compute_loss: Callable[[Any, Any], Tensor], learning_rate: float
) -> float:
    """Train on every batch once with AdamW and a one-cycle schedule; return the seconds it took."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=len(batches), pct_start=0.15)
    model.train()
    start = time.monotonic()
    for batch in (progress := tqdm(batches, disable=None)):
        loss = compute_loss(model, batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}")
    model.eval()
    return time.monotonic() - start


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the state dict whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}))
    temporary.replace(path)


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def describe_environment() -> dict[str, Any]:
    return {"torch": torch.__version__, "torchvision": torchvision.__version__, "cpu_count": os.cpu_count()}
