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
from PIL.PngImagePlugin import PngImageFile

from vision_serving.config import ColourConfig
from vision_serving.errors import UnsupportedFormatError

Background = tuple[int, int, int]

# TIFF tags
BITS_PER_SAMPLE = 258
PHOTOMETRIC = 262
WHITE_IS_ZERO = 0

# Pillow brings the pixels of a PNG to 8 bits, but not the value that is transparent in it. By rawmode.
KEY_FACTORS = {"L;2": 85.0, "L;4": 17.0, "I;16B": 1 / 256, "RGB;16B": 1 / 256}

# Of a profile's colour space: the mode that its transform takes, and the modes of pictures that it can be meant for.
PROFILE_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
MEANT_FOR = {
    "RGB": {"RGB", "RGBA", "RGBX", "RGBa", "P", "PA", "1", "L", "LA", "La", "YCbCr"},
    "L": {"1", "L", "LA", "La"},
    "CMYK": {"CMYK"},
}
MAX_PROFILE_BYTES = 4_000_000  # those of printing presses have up to 3 MB
CACHED_PROFILE_BYTES = 65_536
STRIP_PIXELS = 500_000  # that are read at once of a large picture
ROUNDING = 2  # levels: a profile that changes no colour by more is sRGB by another name


def load_rgb(opened: PIL.Image.Image, config: ColourConfig) -> PIL.Image.Image:
    """Decode an opened picture and return it as RGB. Raises UnsupportedFormatError, or whatever its decoder raises."""
    _scale_colour_key(opened)
    opened.load()
    if hasattr(opened, "_decoder"):  # of WebP and AVIF: it keeps what it decoded
        opened._decoder = None
    return to_rgb(opened, config)


def _scale_colour_key(opened: PIL.Image.Image) -> None:
    """Bring the transparent colour of a PNG to the depth that its pixels will have."""
    key = opened.info.get("transparency")
    if key is None or not isinstance(opened, PngImageFile) or not opened.tile:
        return
    factor = KEY_FACTORS.get(str(opened.tile[0].args), 1.0)
    if isinstance(key, tuple):
        opened.info["transparency"] = tuple(int(level * factor) for level in key)
    elif isinstance(key, int):
        opened.info["transparency"] = int(key * factor)


def to_rgb(image: PIL.Image.Image, config: ColourConfig) -> PIL.Image.Image:
    """Return a loaded picture as RGB. Raises UnsupportedFormatError for floating-point pixels."""
    if image.mode == "F":
        raise UnsupportedFormatError("a picture of floating-point pixels, whose white is not known; send 8 or 16 bits")
    if image.mode.startswith("I"):
        image = _to_8_bits(image)
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
        levels[rows] = (wide >> shift).clip(0, 255)
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
