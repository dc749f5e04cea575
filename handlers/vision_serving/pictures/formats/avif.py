"""AVIF: decoded on one thread; items of other kinds than libavif decodes are named."""

import re

import PIL.AvifImagePlugin

from vision_serving.pictures.formats.base import Format

ITEM = re.compile(rb"infe\x02.{7}([ -~]{4})", re.DOTALL)  # the kind of each
HEAD_BYTES, MAX_KINDS = 65_536, 5  # where they are looked for, and how many are named


def _prepare() -> None:
    PIL.AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # images are decoded in as many threads as there are to be


def _name_kind(encoded: bytes, error: Exception) -> str | None:
    """Return the kinds of items in a file that libavif can parse, and not decode."""
    if not isinstance(error, RuntimeError):
        return None
    kinds = sorted({kind.decode() for kind in ITEM.findall(encoded[:HEAD_BYTES])})[:MAX_KINDS]
    return f"items of the kinds {', '.join(kinds) or 'unknown'} ({str(error).rpartition(': ')[2].lower()})"


FORMAT = Format(suffixes=(".avif",), brands=frozenset((b"avif", b"avis")), prepare=_prepare, name_kind=_name_kind)
