"""Decoded pixels of any colour mode -> RGB as a person sees them: 8 bits, sRGB, on a background."""

import io
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageCms
from numpy.typing import NDArray
from PIL.ImageCms import ImageCmsTransform

from vision_serving.config import ColourConfig

MAX_PROFILE_BYTES = 4_000_000  # those of printing presses have up to 3 MB
Background = tuple[int, int, int]

# TIFF tags
BITS_PER_SAMPLE = 258
PHOTOMETRIC = 262
WHITE_IS_ZERO = 0

# Of a profile's colour space: the mode that its transform takes, and the modes of pictures that it can be meant for.
PROFILE_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
MEANT_FOR = {
    "RGB": {"RGB", "RGBA", "RGBX", "RGBa", "P", "PA", "1", "L", "LA", "La", "YCbCr"},
    "L": {"1", "L", "LA", "La"},
    "CMYK": {"CMYK"},
}
CACHED_PROFILE_BYTES = 65_536
STRIP_PIXELS = 500_000  # that are read at once of a large picture
ROUNDING = 2  # levels: a profile that changes no colour by more is sRGB by another name


def to_rgb(image: PIL.Image.Image, config: ColourConfig, alpha: PIL.Image.Image | None = None) -> PIL.Image.Image:
    """Return a loaded picture as RGB. alpha: where it is transparent, of mode L."""
    if image.mode.startswith("I"):
        image = _to_8_bits(image)
    if alpha is not None:
        image.putalpha(alpha)
    profile = image.info.get("icc_profile")
    if profile and config.icc_profiles == "convert":
        image = _to_srgb(image, profile)
    if config.background != "none" and image.has_transparency_data:
        return _put_on_background(image, config.background)
    return image if image.mode == "RGB" else image.convert("RGB")


def read_strips(picture: PIL.Image.Image) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yield rows and their pixels, some at a time: of all at once Pillow makes two copies."""
    width, height = picture.size
    count = max(1, STRIP_PIXELS // width)
    for top in range(0, height, count):
        bottom = min(top + count, height)
        yield slice(top, bottom), np.asarray(picture.crop((0, top, width, bottom)))


def _to_8_bits(image: PIL.Image.Image) -> PIL.Image.Image:
    """Return the high byte of 16-bit gray.

    Pillow's own conversion clips instead of scaling, and takes no note of tags.
    """
    tags = getattr(image, "tag_v2", {})
    shift = 4 if tags.get(BITS_PER_SAMPLE) == (12,) else 8
    levels = np.empty((image.height, image.width), np.uint8)
    for rows, wide in read_strips(image):
        levels[rows] = (wide.astype(np.uint32) >> shift).clip(max=255)  # of 32 bits, Pillow takes them for signed
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        np.subtract(255, levels, out=levels)
    gray = PIL.Image.fromarray(levels)
    gray.info = dict(image.info)
    return gray


def _to_srgb(image: PIL.Image.Image, profile: bytes) -> PIL.Image.Image:
    """Convert to RGB, or RGBA where something is transparent.

    Return the picture as it is where its profile is of no use.
    """
    found = find_transform(profile) if len(profile) <= MAX_PROFILE_BYTES else None
    if found is None or image.mode not in MEANT_FOR[found[0]]:
        return image
    mode, transform = found
    converted = transform.apply(image if image.mode == mode else image.convert(mode))
    if image.has_transparency_data:
        converted.putalpha(_to_rgba(image).getchannel("A"))
    return converted


def find_transform(profile: bytes) -> tuple[str, ImageCmsTransform] | None:
    """Find what `build_transform` builds.

    Small profiles, as cameras and phones write them, are kept; large ones are not.
    """
    return _build_cached(profile) if len(profile) <= CACHED_PROFILE_BYTES else build_transform(profile)


def build_transform(profile: bytes) -> tuple[str, ImageCmsTransform] | None:
    """Build the transform of a mode to sRGB.

    None for sRGB itself, and for a broken profile, which browsers ignore, too.
    """
    srgb = PIL.ImageCms.createProfile("sRGB")
    try:
        opened = PIL.ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = PROFILE_MODES.get(opened.profile.xcolor_space)
        if mode is None:
            return None
        transform = PIL.ImageCms.buildTransform(opened, srgb, mode, "RGB")
    except (OSError, TypeError, ValueError, PIL.ImageCms.PyCMSError):
        return None
    return (mode, transform) if mode == "CMYK" or _changes_colours(mode, transform) else None


_build_cached = lru_cache(maxsize=16)(build_transform)


def _changes_colours(mode: str, transform: ImageCmsTransform) -> bool:
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    samples = PIL.Image.fromarray(cube if mode == "RGB" else np.arange(256, dtype=np.uint8)[None])
    before, after = (np.asarray(picture.convert("RGB")).astype(int) for picture in (samples, transform.apply(samples)))
    return bool(np.abs(after - before).max() > ROUNDING)


def _put_on_background(image: PIL.Image.Image, background: Background) -> PIL.Image.Image:
    rgba = _to_rgba(image)
    alpha = rgba.getchannel("A")
    if alpha.getextrema()[0] == 255:
        return rgba.convert("RGB")
    canvas = PIL.Image.new("RGB", rgba.size, background)
    canvas.paste(rgba, mask=alpha)
    return canvas


def _to_rgba(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode == "La":  # Pillow has no way from there to RGBA
        image = image.convert("LA")
    return image if image.mode == "RGBA" else image.convert("RGBA")
