"""What a format is here, and what several formats need."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

import PIL.Image
from PIL.ImageFile import ImageFile, _Tile

from vision_serving.config import ImageLimits
from vision_serving.errors import ImageDecodeError

MAX_PIECES = 50_000  # what takes Pillow a tenth of a second; large photographs have some thousands
FEW_BYTES = 100_000  # no file of this size has pieces enough to matter
# An A4 page at 300 dots per inch, which may be blank: a picture of so few pixels may have any number of them in a byte.
FEW_PIXELS = 10_000_000
EXIF_NAME = b"Exif\0\0"  # what an EXIF block of a JPEG begins with

CheckOpened: TypeAlias = Callable[[PIL.Image.Image, bytes, ImageLimits], None]


@dataclass(frozen=True)
class Format:
    """A format that may be served: how its files are known, and what Pillow alone would do wrong with them.

    suffixes        of its files, as `.jpg`
    signatures      (offset, bytes): how a file begins
    brands          in the place of signatures, of a file that begins with an `ftyp` box
    prepare         makes its decoder ready, silent and single-threaded; raises ConfigError
    check_bytes     refuses a file before it is opened, by a RequestError
    open            opens a file in the place of Pillow
    check_opened    refuses what was opened, by its header and the encoded bytes, before pixels are decoded
    shrink_factors  by which its decoder can shrink a picture, largest first
    load            decodes in the place of Pillow; returns where the picture is opaque, or None for what Pillow says
    is_framed       whether the first frame may be smaller than the picture
    name_kind       the kind of a file that does not open, by its bytes and Pillow's error; None for a damaged one
    """

    suffixes: tuple[str, ...]
    signatures: tuple[tuple[int, bytes], ...] = ()
    brands: frozenset[bytes] = frozenset()
    prepare: Callable[[], None] | None = None
    check_bytes: Callable[[bytes], None] | None = None
    open: Callable[[bytes], ImageFile] | None = None
    check_opened: CheckOpened | None = None
    shrink_factors: tuple[int, ...] = ()
    load: Callable[[ImageFile], PIL.Image.Image | None] | None = None
    is_framed: bool = False
    name_kind: Callable[[bytes, Exception], str | None] | None = None

    def fits(self, encoded: bytes) -> bool:
        """Return whether a file begins as those of this format do."""
        if self.brands:
            return not self.brands.isdisjoint(_read_brands(encoded))
        return any(encoded.startswith(signature, offset) for offset, signature in self.signatures)


def _read_brands(encoded: bytes) -> Iterator[bytes]:
    if encoded[4:8] == b"ftyp":
        end = min(int.from_bytes(encoded[:4], "big"), 256)
        yield from (encoded[place : place + 4] for place in (8, *range(16, end, 4)))


def check_pieces(encoded: bytes, walk: Callable[[bytes], Iterator[None]]) -> None:
    """Raise ImageDecodeError for a file of so many pieces that Pillow, which reads them in Python, would be slow.

    A piece is a segment of a JPEG, a block of a GIF, a byte between them that none of them explains.
    """
    if len(encoded) > FEW_BYTES and next(islice(walk(encoded), MAX_PIECES, None), encoded) is None:
        raise ImageDecodeError(f"the file consists of more than {MAX_PIECES:,} pieces")


def load_pixels(opened: ImageFile, complete: Callable[[ImageFile, list[_Tile], bytes], bool]) -> None:
    """Decode an opened picture. Raises what its decoder raises.

    complete: decodes from tiles and bytes a file that ends too early; False where a pixel is missing. A whole file
    pays nothing for it.
    """
    tiles, source = list(opened.tile), opened.fp
    try:
        opened.load()
    except OSError:
        if not isinstance(source, io.BytesIO) or not complete(opened, tiles, source.getvalue()):
            raise


def load_again(opened: ImageFile, tiles: list[_Tile], encoded: bytes) -> None:
    """Decode an opened picture from other bytes."""
    opened._im, opened.tile = None, list(tiles)
    opened.fp = io.BytesIO(encoded)
    opened._fp = opened.fp  # which a JPEG with more pictures behind it reads
    opened.load()
