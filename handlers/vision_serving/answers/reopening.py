"""An image decoded once more, to be drawn on. It needs no PyTorch: commands that draw do not wait for it."""

import PIL.Image

from vision_serving.answers.drawing import picture_scale
from vision_serving.config import ColourConfig, ImageLimits
from vision_serving.pictures.decoding import open_image, read_picture, shrink_jpeg


def open_picture(encoded: bytes, limits: ImageLimits, colours: ColourConfig | None = None) -> PIL.Image.Image:
    """RGB, upright, perhaps decoded at a part of its size. Raises a RequestError as `images.decode_image` does."""
    with open_image(encoded, limits, shrink_to_canvas) as opened:
        return read_picture(opened, colours or ColourConfig())


def shrink_to_canvas(opened: PIL.Image.Image) -> None:
    """A large JPEG need not be decoded larger than it is drawn."""
    shrink_jpeg(opened, lambda size_hw: 1 / picture_scale(size_hw[1], size_hw[0]))
