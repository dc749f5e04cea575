"""AVIF: decoded on one thread; items of other kinds than libavif decodes are named."""

import re

import PIL.AvifImagePlugin

from vision_serving.pictures.formats.base import Format

ITEM = re.compile(rb"infe\x02.{7}(.{4})", re.DOTALL)  # the kind of each


def _prepare() -> None:
    PIL.AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # images are decoded in as many threads as there are to be


def _name_kind(encoded: bytes, error: Exception) -> str | None:
    """Return the kinds of items in a file that libavif can parse, and not decode."""
    if not isinstance(error, RuntimeError):
        return None
    kinds = sorted({kind.decode("latin-1") for kind in ITEM.findall(encoded)})
    return f"items of the kinds {', '.join(kinds)} ({str(error).rpartition(': ')[2].lower()})"


FORMAT = Format(suffixes=(".avif",), brands=frozenset((b"avif", b"avis")), prepare=_prepare, name_kind=_name_kind)
