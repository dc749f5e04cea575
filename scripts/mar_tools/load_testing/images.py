"""The pictures of a load test: many different ones, of one size, the same ones each time and everywhere."""

import io
import random
from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageOps

from mar_tools.images import PHOTOGRAPHS, find_images

JPEG_QUALITY = 90
LEAST_SHARE = 0.6  # of a photograph that a cut shows
GRAIN = 6.0  # of 255: gives a cut that was scaled up the detail, and so the bytes and the decoding time, of a camera's


def load_test_images(count: int = 200, size: tuple[int, int] = (640, 427)) -> list[bytes]:
    """Load distinct JPEGs: cuts of `examples/photographs`, half of them mirrored. size: (width, height) of each."""
    sources = [PIL.Image.open(path).convert("RGB") for path in find_images(PHOTOGRAPHS)]
    return [_encode(cut_image(sources[number % len(sources)], size, number)) for number in range(count)]


def summarise_images(images: Sequence[bytes]) -> dict[str, int]:
    return {"count": len(images), "mean_bytes": sum(map(len, images)) // len(images)}


def cut_image(source: PIL.Image.Image, size: tuple[int, int], seed: int) -> PIL.Image.Image:
    """Return a part of a picture that `seed` chooses, in the shape of `size` and scaled to it, with grain."""
    choose = random.Random(seed)
    scale = min(source.width / size[0], source.height / size[1]) * choose.uniform(LEAST_SHARE, 1.0)
    width, height = size[0] * scale, size[1] * scale
    left, top = choose.uniform(0, source.width - width), choose.uniform(0, source.height - height)
    cut = source.resize(size, PIL.Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
    grain = np.random.default_rng(seed).normal(0.0, GRAIN, (size[1], size[0], 1))
    grainy = PIL.Image.fromarray((np.asarray(cut) + grain).round().clip(0, 255).astype(np.uint8))
    return PIL.ImageOps.mirror(grainy) if choose.random() < 0.5 else grainy


def _encode(image: PIL.Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
