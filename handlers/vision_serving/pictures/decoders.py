"""The libraries that decode, made ready before the first image: on one thread each, and silent."""

import ctypes
import logging
from collections.abc import Sequence
from functools import cache

import PIL._imaging
import PIL.AvifImagePlugin
import PIL.Image

from vision_serving.errors import ConfigError, how_to_install

HANDLER_SETTERS = (
    "TIFFSetErrorHandler", "TIFFSetErrorHandlerExt", "TIFFSetWarningHandler", "TIFFSetWarningHandlerExt",
)  # fmt: skip


def load_formats(formats: Sequence[str]) -> None:
    """Make Pillow ready for these formats, so that the first image need not wait. Raises ConfigError.

    Decoders that would start threads of their own are told not to: images are decoded in as many as there are to be.
    """
    PIL.Image.init()
    PIL.AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    _silence_libtiff()
    if "HEIF" not in formats:
        return
    try:
        import pillow_heif
    except ModuleNotFoundError as error:
        raise ConfigError(f"limits.formats: HEIF needs {how_to_install(error)}") from error
    pillow_heif.register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)


@cache
def _find_libtiff() -> ctypes.CDLL:
    return ctypes.CDLL(PIL._imaging.__file__)  # Pillow and what it is linked with: the libtiff that is mapped


def _silence_libtiff() -> None:
    """Stop libtiff from writing to standard error: a line for each bad row, 36 MB for a fax of 20 KB.

    Of the decoders here, it alone writes anything.
    """
    for name in HANDLER_SETTERS:
        try:
            setter = getattr(_find_libtiff(), name)
        except AttributeError as error:
            raise ConfigError(f"Pillow's libtiff has no {name}; install Pillow from its wheels") from error
        setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
        setter(None)


def has_tiff_codec(compression: int) -> bool:
    """Return whether libtiff was built with this compression."""
    return bool(_find_libtiff().TIFFIsCODECConfigured(ctypes.c_uint16(compression)))
