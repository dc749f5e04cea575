"""Images of any size -> one uint8 batch of model pixels, and how to map boxes back."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.nn import functional

from vision_serving.config import PreprocessingConfig, ResizeConfig
from vision_serving.geometry import ImageGeometry, Region, SizeHW
from vision_serving.pictures.decoding import Image

# Pixels that belong to a request are read, never written to.
warnings.filterwarnings("ignore", category=UserWarning, message="The given NumPy array is not writable")

MAX_RESIZED_PIXELS = 16_000_000
PILLOW_FILTERS = {"nearest-exact", "lanczos", "box", "hamming"}  # torch lacks them, or breaks ties in another way


@dataclass(frozen=True)
class ImageBatch:
    """pixels: uint8 (N, H, W, 3) RGB. geometries: one per image."""

    pixels: Tensor
    geometries: tuple[ImageGeometry, ...]

    @property
    def size_hw(self) -> SizeHW:
        return self.pixels.shape[1], self.pixels.shape[2]

    def of_source(self, source_hw: SizeHW) -> "ImageBatch":
        """Return the same pixels, of images that were decoded at a part of that size."""
        return replace(self, geometries=tuple(geometry.of_source(source_hw) for geometry in self.geometries))

    def seen_in(self, source_hw: SizeHW, region: Region) -> "ImageBatch":
        """Return the same pixels, of images that are that region of a larger one."""
        return replace(self, geometries=tuple(replace(g, source_hw=source_hw, region=region) for g in self.geometries))


def join_batches(batches: Sequence[ImageBatch]) -> ImageBatch:
    """Return one batch of batches of one size."""
    if len(batches) == 1:
        return batches[0]
    geometries = tuple(geometry for batch in batches for geometry in batch.geometries)
    return ImageBatch(torch.cat([batch.pixels for batch in batches]), geometries)


def resized_hw(source_hw: SizeHW, resize: ResizeConfig) -> SizeHW:
    """Return the size of an image after resizing, before cropping or padding."""
    height, width = RESIZED[resize.mode](source_hw, resize)
    return max(1, height), max(1, width)


def _exact(_: SizeHW, resize: ResizeConfig) -> SizeHW:
    return _size_hw(resize)


def _letterbox(source_hw: SizeHW, resize: ResizeConfig) -> SizeHW:
    return _divided(source_hw, max(_ratios(source_hw, resize)))


def _fixed_height(source_hw: SizeHW, resize: ResizeConfig) -> SizeHW:
    """Scale as PaddleOCR does: the width rounded up, and squeezed where it is more than the largest."""
    height, most = _size_hw(resize)
    return height, min(most, math.ceil(height * source_hw[1] / source_hw[0]))


def _cover(source_hw: SizeHW, resize: ResizeConfig) -> SizeHW:
    return _divided(source_hw, min(_ratios(source_hw, resize)))


def _bounded_edges(source_hw: SizeHW, resize: ResizeConfig) -> SizeHW:
    """Scale as torchvision.models.detection.transform does: floor of the scaled sides."""
    assert isinstance(resize.size, int)
    assert resize.max_size is not None
    scale = min(resize.size / min(source_hw), resize.max_size / max(source_hw))
    return math.floor(source_hw[0] * scale), math.floor(source_hw[1] * scale)


def _shortest_edge(source_hw: SizeHW, resize: ResizeConfig) -> SizeHW:
    """Scale as torchvision's resize does; with `max_size` as transformers' get_size_with_aspect_ratio."""
    assert isinstance(resize.size, int)
    shorter, longer = min(source_hw), max(source_hw)
    short_side, exact_side = resize.size, float(resize.size)
    if resize.max_size is not None and longer / shorter * resize.size > resize.max_size:
        exact_side = resize.max_size * shorter / longer
        short_side = round(exact_side)
    long_side = longer if short_side == shorter else int(exact_side * longer / shorter)
    step = resize.multiple_of or 1
    sides = [max(step, side - side % step) for side in (short_side, long_side)]
    return (sides[0], sides[1]) if source_hw[0] <= source_hw[1] else (sides[1], sides[0])


RESIZED: dict[str, Callable[[SizeHW, ResizeConfig], SizeHW]] = {
    "shortest_edge": _shortest_edge,
    "exact": _exact,
    "cover": _cover,
    "letterbox": _letterbox,
    "fixed_height": _fixed_height,
    "bounded_edges": _bounded_edges,
}


def _size_hw(resize: ResizeConfig) -> SizeHW:
    assert isinstance(resize.size, tuple)
    return resize.size


def _ratios(source_hw: SizeHW, resize: ResizeConfig) -> tuple[float, float]:
    height, width = _size_hw(resize)
    return source_hw[0] / height, source_hw[1] / width


def _divided(source_hw: SizeHW, ratio: float) -> SizeHW:
    return round(source_hw[0] / ratio), round(source_hw[1] / ratio)


def spare_ratio(source_hw: SizeHW, config: PreprocessingConfig) -> float:
    """Return how many times smaller an image may be and still be twice as high and as wide as what it is resized to."""
    height, width = resized_hw(source_hw, config.resize)
    return min(source_hw[0] / height, source_hw[1] / width) / 2


def model_hw(source_hw: SizeHW, config: PreprocessingConfig) -> SizeHW:
    """Return the size in model pixels of an image; images of one such size can share a batch."""
    if config.crop is not None:
        return config.crop
    return config.resize.canvas or resized_hw(source_hw, config.resize)


def preprocess_images(images: Sequence[Image], config: PreprocessingConfig) -> ImageBatch:
    """Resize, then centre-crop or pad, images that share one `model_hw`."""
    height, width = model_hw(images[0].shape[:2], config)
    # torchvision's CenterCrop pads images that are too small with black
    fill = 0 if config.resize.canvas is None else config.resize.pad_value
    pixels = torch.empty((len(images), height, width, 3), dtype=torch.uint8)
    pixels[:] = torch.tensor(fill, dtype=torch.uint8)
    geometries = tuple(_place(image, pixels[index], config) for index, image in enumerate(images))
    return ImageBatch(pixels=pixels, geometries=geometries)


def _place(image: Image, target: Tensor, config: PreprocessingConfig) -> ImageGeometry:
    """Write the resized image into `target` (H, W, 3), cutting or leaving borders as sizes demand."""
    source_hw = (image.shape[0], image.shape[1])
    height, width = resized_hw(source_hw, config.resize)
    target_y, start_y, length_y = _overlap(target.shape[0], height, config)
    target_x, start_x, length_x = _overlap(target.shape[1], width, config)
    region = (start_y, start_x, length_y, length_x)
    target[target_y : target_y + length_y, target_x : target_x + length_x] = resize_region(
        image, (height, width), region, config
    )
    return ImageGeometry(
        source_hw=source_hw,
        scale_hw=(height / source_hw[0], width / source_hw[1]),
        offset_hw=(target_y - start_y, target_x - start_x),
        model_hw=(target.shape[0], target.shape[1]),
    )


def _overlap(target: int, source: int, config: PreprocessingConfig) -> tuple[int, int, int]:
    """Start in the target, start in the source and length of the overlap, centred as torchvision's center_crop does."""
    if source >= target:
        surplus = source - target
        return 0, round(surplus / 2.0) if config.crop_offset == "round" else surplus // 2, target
    at_start = config.resize.pad_place == "top_left" or config.resize.mode == "fixed_height"
    return 0 if at_start else (target - source) // 2, 0, source


def resize_region(
    image: Image, size_hw: SizeHW, region: tuple[int, int, int, int], config: PreprocessingConfig
) -> Tensor:
    """Return the region (y, x, height, width) of an image resized to `size_hw`: uint8 (H, W, 3)."""
    start_y, start_x, height, width = region
    if size_hw[0] * size_hw[1] <= MAX_RESIZED_PIXELS:
        return resize_image(image, size_hw, config)[start_y : start_y + height, start_x : start_x + width]
    # A strip of 1 x 16384 would become 232 x 3.8 million before its crop. Pillow resizes the region alone.
    scale_y, scale_x = size_hw[0] / image.shape[0], size_hw[1] / image.shape[1]
    box = (start_x / scale_x, start_y / scale_y, (start_x + width) / scale_x, (start_y + height) / scale_y)
    return _resize_with_pillow(image, (height, width), config, box)


def resize_image(image: Image, size_hw: SizeHW, config: PreprocessingConfig) -> Tensor:
    """Resize uint8 (H, W, 3) to uint8 (*size_hw, 3), as torchvision's tensor transforms do it; itself where it fits."""
    pixels = torch.from_numpy(image)
    if pixels.shape[:2] == size_hw:
        return pixels
    if config.interpolation in PILLOW_FILTERS:
        return _resize_with_pillow(image, size_hw, config)
    # In this order PyTorch sees that the channels come last, and resizes without making planes of them: twice as fast.
    planes = pixels.unsqueeze(0).permute(0, 3, 1, 2)
    if config.interpolation == "nearest":
        resized = functional.interpolate(planes, size_hw, mode="nearest")
    elif config.antialias:
        if is_height_first(image.shape[:2], size_hw, config):  # torch's own first pass is the horizontal one
            between_hw = (size_hw[0], image.shape[1])
            planes = functional.interpolate(planes, between_hw, mode=config.interpolation, antialias=True)
        resized = functional.interpolate(planes, size_hw, mode=config.interpolation, antialias=True)
    else:  # without antialiasing, torch's uint8 kernel rounds upwards
        values = functional.interpolate(planes.float(), size_hw, mode=config.interpolation)
        resized = values.round().clamp(0, 255).to(torch.uint8)
    return resized[0].permute(1, 2, 0)


def is_height_first(source_hw: SizeHW, size_hw: SizeHW, config: PreprocessingConfig) -> bool:
    """Return whether a resize's vertical pass comes before the horizontal one, which decides what
    overshoot is cut off.
    """
    lost_height, lost_width = source_hw[0] - size_hw[0], source_hw[1] - size_hw[1]
    return config.pass_order == "pillow13" and lost_height > max(0, 2 * lost_width)


def _resize_with_pillow(
    image: Image, size_hw: SizeHW, config: PreprocessingConfig, box: tuple[float, float, float, float] | None = None
) -> Tensor:
    """Resize the part `box` (left, top, right, bottom) to `size_hw`; Pillow then orders its passes."""
    resample = PIL.Image.Resampling[config.interpolation.removesuffix("-exact").upper()]
    picture = PIL.Image.fromarray(image)
    if box is None and resample != PIL.Image.Resampling.NEAREST:  # the order must not depend on Pillow's version
        height_first = is_height_first(image.shape[:2], size_hw, config)
        picture = picture.resize(
            (picture.width, size_hw[0]) if height_first else (size_hw[1], picture.height), resample
        )
    return torch.from_numpy(np.array(picture.resize((size_hw[1], size_hw[0]), resample, box)))
