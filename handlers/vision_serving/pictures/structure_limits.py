"""What Pillow reads piece by piece, in Python, before it decodes: a file of millions of pieces is refused first.

A piece is a segment of a JPEG, a block of a GIF, a byte between them that none of them explains.
The chunks of a PNG are read, and counted, in png_chunks.py.
"""

import struct
from collections.abc import Callable, Iterator
from itertools import islice, repeat

from vision_serving.errors import ImageDecodeError

MAX_PIECES = 50_000  # what takes Pillow a tenth of a second; large photographs have some thousands
FEW_BYTES = 100_000  # no file of this size has pieces enough to matter
PNG, JPEG, GIF = b"\x89PNG", b"\xff\xd8\xff", b"GIF8"

# Of a TIFF, the values of a tag that Pillow makes a tuple of numbers: most are one for each strip of the picture.
MAX_TIFF_VALUES, MAX_TIFF_TAGS = 100_000, 65_535
TIFF_VERSIONS = {  # order of bytes, and whether it is a BigTIFF; Pillow reads two that are none, too
    b"II*\0": ("<", False), b"MM\0*": (">", False), b"II\0*": ("<", False), b"MM*\0": (">", False),
    b"II+\0": ("<", True), b"MM\0+": (">", True),
}  # fmt: skip
TYPES_OF_TEXT = (1, 2, 7)  # BYTE, ASCII, UNDEFINED: one object, however long it is

STANDALONE = (0x01, *range(0xD0, 0xDA), 0xC8, *range(0xF0, 0xFE))  # markers behind which Pillow looks for the next one
START_OF_SCAN, TABLES, PHOTOSHOP, EXIF = 0xDA, 0xDB, 0xED, 0xE1
TABLE_BYTES = 65
EXIF_NAME = b"Exif\0\0"
EXIF_PIECES = 500  # Pillow copies what it has of the EXIF block each time that a segment continues it


def check_structure(encoded: bytes) -> None:
    """Raises ImageDecodeError."""
    _check_tags(encoded)
    if len(encoded) <= FEW_BYTES:
        return
    for signature, walk in WALKS.items():
        if encoded.startswith(signature) and _has_more(walk(encoded), MAX_PIECES):
            raise ImageDecodeError(f"the file consists of more than {MAX_PIECES:,} pieces")


def _has_more(pieces: Iterator[None], limit: int) -> bool:
    return next(islice(pieces, limit, None), pieces) is not pieces


def _walk_jpeg(encoded: bytes) -> Iterator[None]:
    """Walk up to the first scan, as libjpeg reads what is behind it."""
    place = 2
    while place + 4 <= len(encoded):
        yield
        marker = encoded[place + 1]
        if encoded[place] != 0xFF or marker in (0x00, 0xFF):
            place += 1
        elif marker == START_OF_SCAN:
            return
        elif marker in STANDALONE:
            place += 2
        else:
            end = place + 2 + max(2, int.from_bytes(encoded[place + 2 : place + 4], "big"))
            yield from repeat(None, _jpeg_pieces(marker, encoded[place + 4 : end]))
            place = end


def _jpeg_pieces(marker: int, segment: bytes) -> int:
    """Return what is taken apart within a segment."""
    if marker == TABLES:
        return len(segment) // TABLE_BYTES
    if marker == PHOTOSHOP:
        return segment.count(b"8BIM")
    return EXIF_PIECES if marker == EXIF and segment.startswith(EXIF_NAME) else 0


def _walk_gif(encoded: bytes) -> Iterator[None]:
    """Walk up to the first frame."""
    place = 13 + (3 << (encoded[10] & 7) + 1 if encoded[10] & 0x80 else 0)
    while place + 2 < len(encoded) and encoded[place] not in b",;":
        yield
        if encoded[place] != ord("!"):
            place += 1
            continue
        place += 2
        while place < len(encoded) and encoded[place]:
            yield
            place += 1 + encoded[place]
        place += 1


WALKS: dict[bytes, Callable[[bytes], Iterator[None]]] = {JPEG: _walk_jpeg, GIF: _walk_gif}


def _check_tags(encoded: bytes) -> None:
    """Check the first picture's tags, in a TIFF; a directory that is cut off is left to Pillow."""
    if encoded[:4] not in TIFF_VERSIONS:
        return
    order, is_big = TIFF_VERSIONS[encoded[:4]]
    offset_type, count_type, head = ("Q", "Q", 8) if is_big else ("I", "H", 4)
    try:
        (start,) = struct.unpack_from(order + offset_type, encoded, head)
        (count,) = struct.unpack_from(order + count_type, encoded, start)
    except (struct.error, OverflowError):
        return
    if count > MAX_TIFF_TAGS:
        raise ImageDecodeError(f"the file has {count:,} TIFF tags; there can be {MAX_TIFF_TAGS:,}")
    start += struct.calcsize("=" + count_type)
    entry = struct.Struct(f"{order}HH{offset_type}{offset_type}")
    whole = min(count, (len(encoded) - start) // entry.size)
    for _, kind, values, _ in entry.iter_unpack(encoded[start : start + max(0, whole) * entry.size]):
        if kind not in TYPES_OF_TEXT and values > MAX_TIFF_VALUES:
            raise ImageDecodeError(f"a TIFF tag has {values:,} values; the limit is {MAX_TIFF_VALUES:,}")
