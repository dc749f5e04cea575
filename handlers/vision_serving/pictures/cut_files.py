"""JPEG and PNG files that end too early: decoded where no pixel is missing. A whole file pays nothing for it."""

import io
import random
import re
import struct
import zlib
from collections.abc import Callable, Iterator

from PIL.ImageFile import ImageFile, _Tile

from vision_serving.pictures.colours import read_strips
from vision_serving.pictures.png_chunks import has_all_pixels

ENDS = b"\xff\xd9" * 33_000  # a segment that is cut off may swallow 65,535 bytes
NOISE = [bytes(random.Random(seed).choices(range(255), k=64)) for seed in range(3)]  # no 0xFF, which begins a marker


def _write_tail(noise: bytes, first: int) -> bytes:
    """Return compressed pixels of no meaning, and again behind each marker that a decoder may wait for."""
    return noise + b"".join(bytes((0xFF, 0xD0 + (first + step) % 8)) + noise for step in range(8)) + ENDS


# What is missing decodes to other pixels with each of them; what is behind the last pixel to none. A decoder skips the
# restart markers just before the one that it waits for, so they begin with different ones.
TAILS = (*(_write_tail(noise, 3 * number) for number, noise in enumerate(NOISE)), ENDS)

MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # that ends compressed pixels
START_OF_SCAN, END = 0xDA, 0xD9
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
PROGRESSIVE = (0xC2, 0xCA)
MAX_SIDE = 65_528  # the last multiple of 8 that a JPEG can have


def load_pixels(opened: ImageFile) -> None:
    """Decode an opened picture.

    Raises what its decoder raises, for a JPEG or a PNG that ends too early only where a pixel is missing.
    """
    tiles, source = list(opened.tile), opened.fp
    try:
        opened.load()
    except OSError:
        complete = COMPLETE.get(opened.format or "")
        if complete is None or not isinstance(source, io.BytesIO) or not complete(opened, tiles, source.getvalue()):
            raise


def _load_again(opened: ImageFile, tiles: list[_Tile], encoded: bytes) -> None:
    opened._im, opened.tile = None, list(tiles)
    opened.fp = io.BytesIO(encoded)
    opened._fp = opened.fp  # which a JPEG with more pictures behind it reads
    opened.load()


def _complete_png(opened: ImageFile, tiles: list[_Tile], encoded: bytes) -> bool:
    """Decode the rows that the decoder, which came to the end of its bytes, had still to copy from those before."""
    if not has_all_pixels(opened, encoded):
        return False
    opened.decoderconfig = ()  # Pillow adds to it at each load
    _load_again(opened, tiles, encoded + bytes(8))
    return True


def _complete_jpeg(opened: ImageFile, tiles: list[_Tile], encoded: bytes) -> bool:
    frame = _find_frame(encoded)
    if frame is None:
        return False
    kept, size = encoded.rstrip(b"\xff"), opened.size
    # Whole blocks are compared: of the last one, a single pixel may be in the picture.
    sides = [side + -side % 8 if side < MAX_SIDE else side for side in struct.unpack_from(">HH", encoded, frame + 5)]
    blocks = kept[: frame + 5] + struct.pack(">HH", *sides) + kept[frame + 9 :]
    scale = opened.decoderconfig[0] if opened.decoderconfig else 1
    opened._size = (-(-sides[1] // scale), -(-sides[0] // scale))
    found = set()
    for tail in TAILS:
        _load_again(opened, [tile._replace(extents=(0, 0, *opened.size)) for tile in tiles], blocks + tail)
        checksum = 0
        for _, strip in read_strips(opened):
            checksum = zlib.crc32(strip.tobytes(), checksum)
        found.add(checksum)
        if len(found) > 1:
            return False
    if blocks != kept:
        opened._size = size
        _load_again(opened, tiles, kept + ENDS)
    return True


def _find_frame(encoded: bytes) -> int | None:
    """Return where the size is stated.

    None unless each component has a scan, in a progressive JPEG one of the last bit of each coefficient.
    """
    missing: dict[int, set[int]] = {}
    frame, is_progressive = None, False
    for place, marker, segment in _walk(encoded):
        if marker in FRAMES and frame is None:
            frame, is_progressive = place, marker in PROGRESSIVE
            missing = {component: set(range(64)) for component in segment[6::3]}
        elif marker == START_OF_SCAN and len(segment) == 4 + 2 * segment[0]:
            first, last, bits = segment[-3:] if is_progressive else (0, 63, 0)
            if bits & 15 == 0:
                for component in segment[1:-3:2]:
                    missing[component] -= set(range(first, last + 1))
    return frame if not any(missing.values()) else None


def _walk(encoded: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield the segments: place, marker and content."""
    end = 2
    while (found := MARKER.search(encoded, end)) is not None and encoded[found.start() + 1] != END:
        place = found.start()
        end = place + 2 + int.from_bytes(encoded[place + 2 : place + 4], "big")
        yield place, encoded[place + 1], encoded[place + 4 : end]


COMPLETE: dict[str, Callable[[ImageFile, list[_Tile], bytes], bool]] = {
    "JPEG": _complete_jpeg, "MPO": _complete_jpeg, "PNG": _complete_png,
}  # fmt: skip
