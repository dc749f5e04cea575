"""A PNG as it counts: the chunks that decide its pixels, each with a right checksum, as a plain PNG of one picture.

Pillow refuses a file for any chunk that is damaged, and decompresses all the texts of it.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import PIL.Image
from PIL.ImageFile import ImageFile

from vision_serving.errors import ImageDecodeError
from vision_serving.pictures.colours import MAX_PROFILE_BYTES
from vision_serving.pictures.formats.base import MAX_PIECES

SIGNATURE = b"\x89PNG\r\n\x1a\n"
ONCE = (b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"acTL")  # the first one counts
PIXELS = (b"IDAT", b"fdAT")
COUNTED = (*ONCE, *PIXELS, b"fcTL")
GRAY, RGB, PALETTE = 0, 2, 3  # colour types
LAST_CHUNK = struct.pack(">I4s", 0x7FFFFFFF, b"IDAT")  # Pillow stops behind the last pixel, and checks no sum


@dataclass
class Chunks:
    """What a PNG holds. frames: where each is, and how many IDAT chunks come before it. is_whole: up to its IEND."""

    once: dict[bytes, memoryview] = field(default_factory=dict)
    default: list[memoryview] = field(default_factory=list)
    frames: list[tuple[memoryview, int]] = field(default_factory=list)
    first_frame: list[memoryview] = field(default_factory=list)
    is_whole: bool = False


def open_png(encoded: bytes) -> ImageFile:
    """Open the picture or, of an animation, the first frame: its place on the picture is that of its tile.

    Raises ImageDecodeError, or what struct, dict and Pillow raise for a damaged file.
    """
    chunks = read_chunks(encoded)
    header = chunks.once[b"IHDR"]
    data, box = _choose_image(chunks)
    kept = [(b"IHDR", header)]
    if header[9] == PALETTE:
        kept.append((b"PLTE", chunks.once[b"PLTE"]))
    if (key := _read_key(chunks)) is not None:
        kept.append((b"tRNS", memoryview(key)))
    parts = [part for kind, content in kept for part in _write_chunk(kind, content)]
    opened = PIL.Image.open(io.BytesIO(b"".join((SIGNATURE, *parts, LAST_CHUNK, *data))), formats=("PNG",))
    if box is not None:
        opened.tile = [tile._replace(extents=box) for tile in opened.tile]
    if (profile := _unpack_profile(chunks.once.get(b"iCCP"))) is not None:
        opened.info["icc_profile"] = profile
    if b"eXIf" in chunks.once:
        opened.info["exif"] = bytes(chunks.once[b"eXIf"])
    return opened


def read_chunks(encoded: bytes) -> Chunks:
    """Sort the chunks that count. Raises ImageDecodeError, or SyntaxError as Pillow does for no PNG."""
    if not encoded.startswith(SIGNATURE):
        raise SyntaxError("no PNG")
    chunks = Chunks()
    for kind, data in _walk(encoded):
        if kind == b"IEND":
            chunks.is_whole = True
        elif kind == b"IDAT":
            chunks.default.append(data)
        elif kind == b"fcTL":
            chunks.frames.append((data, len(chunks.default)))
        elif kind == b"fdAT" and len(chunks.frames) == 1:
            chunks.first_frame.append(data[4:])
        elif kind in ONCE and not chunks.default:  # what describes pixels comes before them
            chunks.once.setdefault(kind, data)
    return chunks


def _walk(encoded: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield kind and data of what counts; of pixels that are cut off, what is there."""
    view, place = memoryview(encoded), len(SIGNATURE)
    for _ in range(MAX_PIECES):
        if place + 8 > len(view):
            return
        length, kind = struct.unpack_from(">I4s", view, place)
        end = place + 8 + length
        data, checksum = view[place + 8 : end], view[end : end + 4]
        if kind == b"IEND":
            yield kind, data
            return
        if kind in COUNTED:
            is_right = struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))) == checksum
            if is_right or (len(checksum) < 4 and kind in PIXELS):
                yield kind, data
            elif kind[:1].isupper():
                raise ImageDecodeError(f"the image is damaged: the checksum of an {kind.decode()} chunk is wrong")
        elif kind[:1].isupper():  # without what it says, the pixels could be read wrongly
            raise ImageDecodeError(f"the PNG has a chunk {kind.decode('latin-1')!a}, which no reader may ignore")
        place = end + 4
    raise ImageDecodeError(f"the file consists of more than {MAX_PIECES:,} pieces")


def _choose_image(chunks: Chunks) -> tuple[list[memoryview], tuple[int, int, int, int] | None]:
    """Return compressed pixels, and the box of a frame: of an animation whose default image is none, the first."""
    control = chunks.once.get(b"acTL", b"")
    is_animated = len(control) == 8 and any(control[:4])
    if not is_animated or any(before == 0 for _, before in chunks.frames[:1]):
        return chunks.default, None
    if not chunks.frames and not chunks.is_whole:
        raise ImageDecodeError("the image is incomplete: its first frame is missing")
    for place, _ in chunks.frames[:1]:
        if len(place) == 26:
            number, width, height, left, top = struct.unpack_from(">5I", place)
            canvas = struct.unpack_from(">II", chunks.once[b"IHDR"])
            if number == 0 and 0 < width <= canvas[0] - left and 0 < height <= canvas[1] - top:
                return chunks.first_frame, (left, top, left + width, top + height)
    return chunks.default, None


def _read_key(chunks: Chunks) -> bytes | None:
    """Return what is transparent, in as many bits as the picture has; None if it does not fit the picture."""
    bits, colour = chunks.once[b"IHDR"][8:10]
    data = chunks.once.get(b"tRNS", b"")
    if colour == PALETTE:
        return bytes(data[: len(chunks.once[b"PLTE"]) // 3]) or None
    words = {GRAY: 1, RGB: 3}.get(colour, 0)
    if words == 0 or len(data) != 2 * words:
        return None
    levels = struct.unpack(f">{words}H", data)
    return struct.pack(f">{words}H", *(level & (1 << bits) - 1 for level in levels))


def _unpack_profile(data: memoryview | None) -> bytes | None:
    """Return the colour profile, unless it is damaged or too large."""
    *_, packed = bytes(data or b"").partition(b"\0")
    unpack = zlib.decompressobj()
    try:
        profile = unpack.decompress(packed[1:], MAX_PROFILE_BYTES) if packed[:1] == b"\0" else b""
    except zlib.error:
        return None
    return profile if profile and unpack.eof else None


def _write_chunk(kind: bytes, data: bytes | memoryview) -> tuple[bytes, bytes | memoryview, bytes]:
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I4s", len(data), kind), data, struct.pack(">I", checksum)


def has_all_pixels(opened: ImageFile, encoded: bytes) -> bool:
    """Return whether the data of `open_png` hold all pixels. encoded: what was read of it."""
    _, box, start, _ = opened.tile[0]
    left, top, right, bottom = box or (0, 0, *opened.size)
    bits, colour, _, _, is_interlaced = encoded[24:29]
    bits *= SAMPLES[colour]
    sizes = (
        (-((x - (right - left)) // step_x), -((y - (bottom - top)) // step_y))
        for x, y, step_x, step_y in (ADAM7 if is_interlaced else ((0, 0, 1, 1),))
    )
    missing = sum(height * (1 + (width * bits + 7) // 8) for width, height in sizes if width > 0 and height > 0)
    unpack = zlib.decompressobj()
    for place in range(start, len(encoded), STEP_BYTES):
        missing -= len(unpack.decompress(encoded[place : place + STEP_BYTES]))
        if missing <= 0 or unpack.eof:  # zlib would keep what is behind its end, with a copy of all at each step
            break
    return missing <= 0


STEP_BYTES = 16_384  # which become 16 MB at most
SAMPLES = {GRAY: 1, RGB: 3, PALETTE: 1, 4: 2, 6: 4}  # of a pixel
ADAM7 = (  # of each pass: the first column and row, and the steps between them
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip
