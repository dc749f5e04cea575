"""Real photographs at many sizes, encoded as a client would send them."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import PIL.Image

from vision_serving.config import ImageLimits
from vision_serving.errors import ConfigError
from vision_serving.geometry import SizeHW
from vision_serving.pictures.decoding import Image, decode_image

# Photographs that the wheels of scikit-image and scikit-learn carry.
SCENES = (
    ("skimage", "data/astronaut.png"),
    ("sklearn", "datasets/images/china.jpg"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
)
# Photographs, portraits, a panorama and a strip, thumbnails, sizes that models themselves have, odd numbers. The first
# ones, which get answers, are the most different.
SIZES_HW: tuple[SizeHW, ...] = (
    (480, 640),
    (1200, 300),
    (501, 333),
    (53, 37),
    (224, 224),
    (300, 1200),
    (640, 480),
    (375, 500),
    (232, 232),
    (384, 384),
    (64, 64),
    (960, 1280),
)
JPEG_SIZE_HW = (427, 641)


@dataclass(frozen=True)
class EncodedPhotograph:
    """An encoded picture, and what Pillow, for the libraries, and our decoder, for us, make of it."""

    name: str
    encoded: bytes
    opened: PIL.Image.Image
    decoded: Image


def make_pictures(rounds: int = 2, sizes_hw: Sequence[SizeHW] = SIZES_HW) -> list[EncodedPhotograph]:
    """Return a PNG of each size and a JPEG, each of the next scene. Each round starts at another scene."""
    scenes = [open_scene(*scene) for scene in SCENES]
    made = [(size_hw, "PNG") for size_hw in sizes_hw] + [(JPEG_SIZE_HW, "JPEG")]
    return [
        _make_picture(scenes[(number + start) % len(scenes)], size_hw, kind)
        for start in range(rounds)
        for number, (size_hw, kind) in enumerate(made)
    ]


def open_scene(package: str, path: str) -> PIL.Image.Image:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"{package}, whose photographs are compared, is missing: pip install -r requirements/dev.txt")
    return PIL.Image.open(Path(spec.origin).parent / path).convert("RGB")


def _make_picture(photograph: PIL.Image.Image, size_hw: SizeHW, kind: str) -> EncodedPhotograph:
    """Return the largest middle part of a photograph that has the shape of the size, resampled to it."""
    height, width = size_hw
    scale = min(photograph.width / width, photograph.height / height)
    left, top = (photograph.width - width * scale) / 2, (photograph.height - height * scale) / 2
    box = (left, top, left + width * scale, top + height * scale)
    buffer = io.BytesIO()
    photograph.resize((width, height), PIL.Image.Resampling.LANCZOS, box).save(buffer, kind)
    encoded = buffer.getvalue()
    opened = PIL.Image.open(io.BytesIO(encoded)).convert("RGB")
    return EncodedPhotograph(f"{height} x {width} {kind}", encoded, opened, decode_image(encoded, ImageLimits()))
