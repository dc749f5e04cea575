"""Images to compare, calibrate and time with: the user's own, or `examples/photographs` where a recipe names none."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from mar_tools.command_line import ROOT
from vision_serving.config import ImageLimits, PreprocessingConfig
from vision_serving.errors import ConfigError
from vision_serving.images import Image, decode_image
from vision_serving.preprocessing import preprocess_images

PHOTOGRAPHS = ROOT / "examples" / "photographs"
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
MODEL_SIZE_HW = (480, 640)  # of photographs for a model whose pixels keep the picture's shape
TRACED_SIZE_HW = (256, 320)

Item = TypeVar("Item")
Split = Literal["all", "verification", "calibration"]
VERIFYING_SCENES = {"chelsea", "flower", "rocket"}  # of the photographs; all views of the other scenes calibrate


def find_images(path: Path) -> list[Path]:
    """An image file, or the images in a folder and its subfolders, sorted. Raises ConfigError where there are none."""
    if path.is_file():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not found:
        raise ConfigError(f"{path}: " + ("no images in this folder" if path.is_dir() else "no such file or folder"))
    return found


def choose_images(folder: Path | None, count: int, split: Split = "all") -> list[Path]:
    """Up to `count` images of a folder; the photographs where it is None.

    `split` divides the photographs by scene, so that what calibrates does not verify. A user's own folder is taken
    whole.
    """
    if folder is not None:
        return spread_evenly(find_images(folder), count)
    chosen = (path for path in find_images(PHOTOGRAPHS) if split in ("all", split_of(path)))
    return list(islice(chosen, count))


def split_of(photograph: Path) -> Split:
    """Photographs are called `<number>_<scene>.jpg`."""
    return "verification" if photograph.stem.partition("_")[2] in VERIFYING_SCENES else "calibration"


def spread_evenly(items: Sequence[Item], count: int | None) -> list[Item]:
    """At most `count` of them in order, from all over: the first of a sorted list may well be all alike."""
    if count is None or count >= len(items):
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]


def load_encoded_images(folder: Path | None, count: int, split: Split = "all") -> list[bytes]:
    """The bytes of `choose_images`."""
    return [path.read_bytes() for path in choose_images(folder, count, split)]


def load_photographs(count: int) -> list[Image]:
    return [decode_image(data, ImageLimits()) for data in load_encoded_images(None, count)]


def load_pixels(count: int, preprocessing: PreprocessingConfig) -> Tensor:
    """A batch of photographs as model pixels, uint8 (N, H, W, 3)."""
    photographs = load_photographs(count)
    if not is_fixed_size(preprocessing):
        photographs = [_resize(photograph, MODEL_SIZE_HW) for photograph in photographs]
    return preprocess_images(photographs, preprocessing).pixels


def example_pixels(preprocessing: PreprocessingConfig) -> Tensor:
    """Two photographs to trace or warm up a graph with; small ones where the graph takes any size."""
    if is_fixed_size(preprocessing):
        return load_pixels(2, preprocessing)
    return torch.from_numpy(np.stack([_resize(photograph, TRACED_SIZE_HW) for photograph in load_photographs(2)]))


def is_fixed_size(preprocessing: PreprocessingConfig) -> bool:
    """Whether all images come to one size in model pixels."""
    return preprocessing.crop is not None or preprocessing.resize.mode in ("exact", "letterbox")


def _resize(image: Image, size_hw: tuple[int, int]) -> Image:
    height, width = size_hw
    return np.asarray(PIL.Image.fromarray(image).resize((width, height), PIL.Image.Resampling.BICUBIC))
