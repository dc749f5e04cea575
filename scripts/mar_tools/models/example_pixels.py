"""Photographs as the model pixels that graphs are traced, warmed up and settled with."""

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from mar_tools.images import load_encoded_images
from vision_serving.config import ImageLimits, PreprocessingConfig
from vision_serving.pictures.decoding import Image, decode_image
from vision_serving.pictures.resizing import preprocess_images

MODEL_SIZE_HW = (480, 640)  # of photographs for a model whose pixels keep the picture's shape
TRACED_SIZE_HW = (256, 320)


def load_photographs(count: int) -> list[Image]:
    return [decode_image(data, ImageLimits()) for data in load_encoded_images(None, count)]


def load_pixels(count: int, preprocessing: PreprocessingConfig) -> Tensor:
    """Return a batch of photographs as model pixels, uint8 (N, H, W, 3)."""
    photographs = load_photographs(count)
    if not is_fixed_size(preprocessing):
        photographs = [_resize(photograph, MODEL_SIZE_HW) for photograph in photographs]
    return preprocess_images(photographs, preprocessing).pixels


def example_pixels(preprocessing: PreprocessingConfig) -> Tensor:
    """Return two photographs to trace or warm up a graph with; small ones where the graph takes any size."""
    if is_fixed_size(preprocessing):
        return load_pixels(2, preprocessing)
    return torch.from_numpy(np.stack([_resize(photograph, TRACED_SIZE_HW) for photograph in load_photographs(2)]))


def is_fixed_size(preprocessing: PreprocessingConfig) -> bool:
    """Return whether all images come to one size in model pixels."""
    return preprocessing.fixed_hw is not None


def _resize(image: Image, size_hw: tuple[int, int]) -> Image:
    height, width = size_hw
    return np.asarray(PIL.Image.fromarray(image).resize((width, height), PIL.Image.Resampling.BICUBIC))
