"""Images to compare and time with: the user's own, or generated ones where a recipe names none."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from vision_serving.config import PreprocessingConfig
from vision_serving.errors import ConfigError
from vision_serving.images import Image
from vision_serving.preprocessing import preprocess_images

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
GENERATED_SIZES_HW = ((480, 640), (640, 480), (427, 640), (512, 512))


def find_images(path: Path) -> list[Path]:
    """An image file, or the images in a folder and its subfolders, sorted. Raises ConfigError where there are none."""
    if path.is_file():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not found:
        raise ConfigError(f"{path}: " + ("no images in this folder" if path.is_dir() else "no such file or folder"))
    return found


def generate_image(seed: int, size_hw: tuple[int, int]) -> Image:
    """A picture with the statistics of a photograph: colour noise over all scales, its amplitude growing with scale."""
    generator = np.random.default_rng(seed)
    height, width = size_hw
    canvas = np.zeros((height, width, 3), dtype=np.float32)
    for cells in (2, 4, 8, 16, 32, 64):
        noise = generator.uniform(-1, 1, (cells, cells, 3)).astype(np.float32)
        for channel in range(3):
            layer = PIL.Image.fromarray(noise[:, :, channel]).resize((width, height), PIL.Image.Resampling.BICUBIC)
            canvas[:, :, channel] += np.asarray(layer) / cells**0.7
    return (128 + 110 * canvas).clip(0, 255).astype(np.uint8)


def generate_images(count: int, preprocessing: PreprocessingConfig) -> Tensor:
    """A batch of generated images as model pixels, uint8 (N, H, W, 3)."""
    images = [generate_image(seed, GENERATED_SIZES_HW[0]) for seed in range(count)]
    return preprocess_images(images, preprocessing).pixels


def encode_jpeg(image: Image) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def load_encoded_images(folder: Path | None, count: int) -> list[bytes]:
    """Up to `count` encoded images of a folder; generated JPEGs of several sizes where it is None."""
    if folder is not None:
        return [path.read_bytes() for path in find_images(folder)[:count]]
    sizes: Sequence[tuple[int, int]] = GENERATED_SIZES_HW
    return [encode_jpeg(generate_image(seed, sizes[seed % len(sizes)])) for seed in range(count)]


def example_pixels(preprocessing: PreprocessingConfig) -> Tensor:
    """Two images to trace or warm up a graph with; small ones where the graph takes any size."""
    if is_fixed_size(preprocessing):
        return generate_images(2, preprocessing)
    return torch.from_numpy(np.stack([generate_image(seed, (256, 320)) for seed in range(2)]))


def is_fixed_size(preprocessing: PreprocessingConfig) -> bool:
    """Whether all images come to one size in model pixels."""
    return preprocessing.crop is not None or preprocessing.resize.mode in ("exact", "letterbox")
