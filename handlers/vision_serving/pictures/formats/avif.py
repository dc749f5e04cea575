"""AVIF: decoded on one thread; items of other kinds than libavif decodes are named."""

import re
from itertools import islice

import PIL.AvifImagePlugin

from vision_serving.pictures.formats.base import Format

ITEM = re.compile(rb"infe\x02.{7}(.{4})", re.DOTALL)  # the kind of each
MAX_ITEMS = 100  # whose kinds are named


def _prepare() -> None:
    PIL.AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # images are decoded in as many threads as there are to be


def _name_kind(encoded: bytes, error: Exception) -> str | None:
    """Return the kinds of items in a file that libavif can parse, and not decode."""
    if not isinstance(error, RuntimeError):
        return None
    kinds = sorted({item[1].decode("latin-1") for item in islice(ITEM.finditer(encoded), MAX_ITEMS)})
    return f"items of the kinds {', '.join(kinds)} ({str(error).rpartition(': ')[2].lower()})"


FORMAT = Format(suffixes=(".avif",), brands=frozenset((b"avif", b"avis")), prepare=_prepare, name_kind=_name_kind)
