"""JPEG: its segments and scans are counted, and a file that ends too early is decoded where no pixel is missing."""

import io
import re
import struct
from collections.abc import Iterable, Iterator
from itertools import islice, repeat

import numpy as np
import PIL.Image
from PIL.ImageFile import ImageFile, _Tile
from PIL.JpegImagePlugin import JpegImageFile

from vision_serving.config import ImageLimits
from vision_serving.errors import ImageDecodeError
from vision_serving.pictures.formats.base import EXIF_NAME, MAX_PIECES, Format, check_pieces, load_again, load_pixels

STANDALONE = (0x01, *range(0xD0, 0xDA), 0xC8, *range(0xF0, 0xFE))  # markers behind which Pillow looks for the next one
START_OF_SCAN, END, TABLES, PHOTOSHOP, EXIF = 0xDA, 0xD9, 0xDB, 0xED, 0xE1
TABLE_BYTES = 65
# Pillow copies what it has of an EXIF block each time that a segment continues it, and reads any number of resolutions.
EXIF_PIECES, EXIF_PIECE_BYTES = 500, 50

# Each scan of a JPEG goes over the whole picture, and ten bytes make one. Encoders write about ten of them.
MAX_JPEG_SCANS = 100
FEW_BYTES_TIMES_PIXELS = 50_000_000_000  # if all the bytes were scans, it would still be done within a second

ENDS = b"\xff\xd9" * 33_000  # a segment that is cut off may swallow 65,535 bytes
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # that ends compressed pixels
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
PROGRESSIVE, BY_HUFFMAN = (0xC2, 0xCA), (0xC0, 0xC1)
LONGEST_SIDE = 65_500  # that libjpeg reads
BLED = 2  # rows of pixels that may take some colour from those above


def _check_segments(encoded: bytes) -> None:
    check_pieces(encoded, _walk_pieces)


def _walk_pieces(encoded: bytes) -> Iterator[None]:
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
    is_exif = marker == EXIF and segment.startswith(EXIF_NAME)
    return max(EXIF_PIECES, len(segment) // EXIF_PIECE_BYTES) if is_exif else 0


def _check_scans(opened: PIL.Image.Image, encoded: bytes, limits: ImageLimits) -> None:
    if len(encoded) * opened.width * opened.height <= FEW_BYTES_TIMES_PIXELS:
        return
    data = np.frombuffer(encoded, dtype=np.uint8)  # ten times as fast as bytes.count
    markers = np.flatnonzero(data[:-1] == 0xFF)
    scans = np.count_nonzero(data[markers + 1] == 0xDA)
    if scans > MAX_JPEG_SCANS:
        raise ImageDecodeError(f"the JPEG has {scans:,} scans; the limit is {MAX_JPEG_SCANS}")


def _load(opened: ImageFile) -> None:
    load_pixels(opened, _complete)


def _complete(opened: ImageFile, tiles: list[_Tile], encoded: bytes) -> bool:
    scans = list(islice(_walk_scans(encoded), MAX_JPEG_SCANS))
    frame = _find_frame(scans)
    if frame is None or len(scans) == MAX_JPEG_SCANS:
        return False
    kept = encoded.rstrip(b"\xff")
    if not (_is_ended(scans[-1], encoded) or (len(scans) == 2 and _has_last_block(kept, frame))):
        return False
    load_again(opened, tiles, kept + ENDS)
    return True


def _has_last_block(encoded: bytes, frame: int) -> bool:
    """Return whether the compressed pixels of a file with one scan reach to the end of its last blocks.

    The frame is made two rows of blocks higher. Once bits have lacked, libjpeg tries no further block and leaves all
    gray. So where the first block that is too many is another than gray, none has lacked before it. True is sure, for a
    gray or blank picture False is not.
    """
    height, width, count = struct.unpack_from(">HHB", encoded, frame + 5)
    sampling = encoded[frame + 11 : frame + 10 + 3 * count : 3] if count > 1 else b"\x11"
    row = 8 * max(factors & 15 for factors in sampling)
    end = height + -height % row
    if encoded[frame + 1] not in BY_HUFFMAN or end + 2 * row > LONGEST_SIDE:
        return False
    higher = encoded[: frame + 5] + struct.pack(">H", end + 2 * row) + encoded[frame + 7 :] + ENDS
    with JpegImageFile(io.BytesIO(higher)) as tried:
        tried.draft("L", (width, end))  # a third of the memory
        rows = [tried.crop((0, start + BLED, width, start + row)) for start in (end, end + row)]
    return bool(rows[0] != rows[1])


def _is_ended(scan: tuple[int, int, bytes], encoded: bytes) -> bool:
    """Return whether a marker ends the compressed pixels of a scan."""
    place, _, segment = scan
    return MARKER.search(encoded, place + 4 + len(segment)) is not None


def _find_frame(scans: Iterable[tuple[int, int, bytes]]) -> int | None:
    """Return where the size is stated.

    None unless each component has a scan, in a progressive JPEG one of the last bit of each coefficient.
    """
    missing: dict[int, set[int]] = {}
    frame, is_progressive = None, False
    for place, marker, segment in scans:
        if marker in FRAMES and frame is None:
            frame, is_progressive = place, marker in PROGRESSIVE
            missing = {component: set(range(64)) for component in segment[6::3]}
        elif marker == START_OF_SCAN and len(segment) == 4 + 2 * segment[0]:
            first, last, bits = segment[-3:] if is_progressive else (0, 63, 0)
            if bits & 15 == 0:
                for component in segment[1:-3:2]:
                    missing[component] -= set(range(first, last + 1))
    return frame if not any(missing.values()) else None


def _walk_scans(encoded: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield frame and scans, of MAX_PIECES segments: place, marker and content."""
    end = 2
    for _ in range(MAX_PIECES):
        found = MARKER.search(encoded, end)
        if found is None or (marker := encoded[found.start() + 1]) == END:
            return
        place = found.start()
        end = place + 2 + int.from_bytes(encoded[place + 2 : place + 4], "big")
        if marker in FRAMES or marker == START_OF_SCAN:
            yield place, marker, encoded[place + 4 : end]


FORMAT = Format(
    suffixes=(".jpg", ".jpeg"),
    signatures=((0, b"\xff\xd8\xff"),),
    check_bytes=_check_segments,
    check_opened=_check_scans,
    shrink_factors=(8, 4, 2),  # which libjpeg does in a fraction of the time
    load=_load,
)
