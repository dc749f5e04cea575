"""The picture that a result is of: its path, or the bytes that were sent as long as there is room for them."""

import io
import os
import threading
import weakref
from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from vision_client.errors import ImageInputError
from vision_client.images import EXIF_ORIENTATION, READ_ERRORS, encode_image

KEPT_BYTES = 64 << 20  # of all results together that a client gave; a path costs nothing
KEPT_PICTURES = 200
JPEG_QUALITY = 85
ON_THEIR_SIDE = (5, 6, 7, 8)  # values of EXIF's orientation
SMALL_PIXELS = 200 * 200  # as PNG: without the noise of a JPEG, and not much larger


class SentPicture:
    """What a result shows itself on. path: as the caller gave it. content: the encoded bytes, None once forgotten."""

    def __init__(self, path: str | None = None, content: bytes | None = None) -> None:
        self.path = path
        self.content = content
        self._absolute = None if path is None else os.path.abspath(path)  # a notebook may change its folder

    @property
    def name(self) -> str:
        """Return the file and its folder, which often is its class; empty for what has no path."""
        return "" if self.path is None else "/".join(self.path.replace(os.sep, "/").split("/")[-2:])

    def read(self) -> bytes | None:
        """Return the encoded picture; None where it was forgotten, or its file cannot be read any more."""
        if self._absolute is None:
            return self.content
        with suppress(ImageInputError):
            return encode_image(self._absolute)
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return SentPicture, (self.path,)  # results that go to another process do not take their pictures along


class PictureMemory:
    """Keeps the pictures that were sent last, for as long as their results live. Safe to use from several threads."""

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: list[weakref.ref[SentPicture]] = []
        self._lock = threading.Lock()

    def keep(self, image: Any, encoded: bytes) -> SentPicture:
        """Return the picture of an image that was sent as these bytes."""
        if isinstance(image, (str, os.PathLike)):
            return SentPicture(os.fsdecode(image))
        picture = SentPicture(content=encoded)
        with self._lock:
            living = [kept for reference in self._kept if (kept := reference()) is not None]
            room = self._most_bytes
            keeps: list[weakref.ref[SentPicture]] = []
            for kept in (picture, *living):  # the newest first
                room -= len(kept.content or b"")
                if room >= 0 and len(keeps) < KEPT_PICTURES:
                    keeps.append(weakref.ref(kept))
                else:
                    kept.content = None
            self._kept = keeps
        return picture


@dataclass(frozen=True)
class Thumbnail:
    """An upright picture small enough for a page. url: of its data. width, height: in pixels, of the whole picture."""

    url: str
    width: int
    height: int


def shrink(encoded: bytes, most_side: int) -> Thumbnail:
    """Turn a picture upright and make it at most `most_side` pixels wide and high.

    Raises ImportError without Pillow, and ImageInputError where Pillow cannot read the picture.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError("a picture is shown by Pillow, which is not installed: pip install pillow") from error
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            turned = opened.getexif().get(EXIF_ORIENTATION, 1) in ON_THEIR_SIDE
            width, height = reversed(opened.size) if turned else opened.size
            opened.draft(None, (most_side, most_side))  # of a large JPEG, a part of the work
            small = _to_eight_bits(opened)
            small.thumbnail((most_side, most_side))
            return Thumbnail(_data_url(ImageOps.exif_transpose(small)), width, height)
    except (*READ_ERRORS, Image.DecompressionBombError) as error:
        raise ImageInputError(None, "ImageInputError", f"Pillow cannot read the picture: {error}") from error


def _to_eight_bits(opened: Any) -> Any:
    """Return the picture in a mode that JPEG or PNG can hold, with its EXIF data."""
    if opened.mode.startswith("I;16"):
        return opened.point(lambda value: value * (1 / 256)).convert("L")
    if opened.mode in ("L", "RGB"):
        return opened
    converted = opened.convert("RGBA" if opened.has_transparency_data else "RGB")
    converted.info.pop("icc_profile", None)  # of CMYK, for one: it says nothing of these colours
    return converted


def _data_url(image: Any) -> str:
    buffer = io.BytesIO()
    if image.mode == "RGBA" or image.width * image.height <= SMALL_PIXELS:
        image.save(buffer, "PNG", exif=b"", icc_profile=image.info.get("icc_profile"))
        return f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}"
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, exif=b"", icc_profile=image.info.get("icc_profile"))
    return f"data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode()}"
