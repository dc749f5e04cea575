"""Read a zip file without trusting it: its headers and its directory must say the same, of every byte that is there.

What ordinary writers leave is taken: deflated entries, times, folders, the two harmless extra fields of `zip`. Whatever
lets two readers see two things is not: hidden entries, gaps, names that mean one file, zip64, data descriptors,
encryption.
"""

import re
import stat
import struct
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from mar_tools.archives.zip_form import (
    CENTRAL,
    CENTRAL_HEADER,
    END,
    END_RECORD,
    LOCAL,
    LOCAL_HEADER,
    MOST_ENTRIES,
    UTF8,
)

STORED, DEFLATED = 0, 8
ENCRYPTED, DESCRIPTOR, DEFLATE_LEVEL = 0x1, 0x8, 0x6
HARMLESS_EXTRAS = {0x5455, 0x7875}  # times, and the owner's number: what `zip` writes
MOST_BYTES = 16 << 30  # of all entries together, extracted
MOST_RATIO = 100  # extracted to packed, of an entry that is not small
SMALL = 1 << 20
BLOCK = 1 << 20
NAME = re.compile(r"[^\x00-\x1f\x7f\\:]+")
BAD_PARTS = {"", ".", ".."}


class ZipError(ValueError):
    """Why a file is not taken, as the end of a sentence."""


@dataclass(frozen=True)
class Entry:
    """start, packed: where its bytes lie and how many; size: when they are extracted; mode: of Unix, 0 for none."""

    name: str
    start: int
    packed: int
    size: int
    crc: int
    method: int
    mode: int

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/")


Data = memoryview


def read_entries(data: Data) -> list[Entry]:
    """Return all entries, as they lie. Raises ZipError.

    Their bytes are not read: read_blocks does, and compares the CRC.
    """
    count, begin, end = _find_directory(data)
    entries: list[Entry] = []
    position, place = begin, 0
    for _ in range(count):
        position, place, entry = _read_entry(data, position, place, begin, end)
        entries.append(entry)
    if position != end:
        raise ZipError(f"its directory has {end - position} bytes beyond its {count} entries")
    if place != begin:
        raise ZipError(_unlisted(data, place, begin))
    _check_names(entries)
    _check_sizes(entries)
    return entries


def _find_directory(data: Data) -> tuple[int, int, int]:
    """Return how many entries, and where their directory begins and ends."""
    if not data:
        raise ZipError("it is empty")
    end = len(data) - END_RECORD.size
    if end < 0 or bytes(data[end : end + 4]) != END:
        tail = bytes(data[-(1 << 16) - END_RECORD.size :])
        if len(tail) - END_RECORD.size > tail.rfind(END) >= 0:
            raise ZipError("something follows its end: a comment, or data that was added")
        begins = bytes(data[:4])
        raise ZipError(
            "it is cut: its end is missing" if begins == LOCAL else f"no zip file: it begins with {begins!r}"
        )
    _, disk, first_disk, here, count, size, begin, comment = END_RECORD.unpack(data[end:])
    if comment:
        raise ZipError("it is cut: its comment is missing")
    if count > MOST_ENTRIES or 0xFFFFFFFF in (size, begin):
        raise ZipError("it uses zip64, a second way to say sizes and places")
    if disk or first_disk or here != count:
        raise ZipError("it is one of several parts")
    if begin + size < end:
        raise ZipError(f"{end - begin - size} bytes precede it, or lie before its end")
    if begin + size > end:
        raise ZipError("its directory lies outside of it")
    return count, begin, end


def _read_entry(data: Data, position: int, place: int, begin: int, end: int) -> tuple[int, int, Entry]:
    """Return the next one of the directory, and where the one after it is, in the directory and in the file."""
    if position + CENTRAL_HEADER.size > end:
        raise ZipError("its directory is cut")
    text = position + CENTRAL_HEADER.size
    central = CENTRAL_HEADER.unpack(data[position:text])
    (_, _, *same, named, extra, comment, disk, _, mode, offset) = central
    _, flags, method, _, _, crc, packed, size = same  # which both say; the others are version, time and date
    after = text + named + extra + comment
    if central[0] != CENTRAL or after > end:
        raise ZipError("its directory is damaged")
    raw_name = bytes(data[text : text + named])
    name = _decode(raw_name, flags)
    _check_extras(name, bytes(data[text + named : text + named + extra]))
    if comment or disk:
        raise ZipError(f"entry {name!r} has a comment, or lies in another part")
    _check_kind(name, flags, method, mode >> 16)
    if 0xFFFFFFFF in (packed, size, offset):
        raise ZipError(f"entry {name!r} uses zip64")
    if offset > place:
        raise ZipError(_unlisted(data, place, offset))
    if offset < place:
        raise ZipError(f"entry {name!r} overlaps another, or is not in its place")
    header = data[offset : offset + LOCAL_HEADER.size]
    if len(header) < LOCAL_HEADER.size or bytes(header[:4]) != LOCAL:
        raise ZipError(f"entry {name!r} has no header of its own")
    local = LOCAL_HEADER.unpack(header)
    if local[1:10] != (*same, named):
        raise ZipError(f"entry {name!r}: its header says other than the directory")
    start = offset + LOCAL_HEADER.size + named
    if bytes(data[start - named : start]) != raw_name:
        raise ZipError(f"entry {name!r}: its header has another name")
    _check_extras(name, bytes(data[start : start + local[10]]))
    start += local[10]
    if start + packed > begin:
        raise ZipError(f"entry {name!r} reaches beyond the entries")
    return after, start + packed, Entry(name, start, packed, size, crc, method, mode >> 16)


def _unlisted(data: Data, place: int, until: int) -> str:
    if bytes(data[place : place + 4]) == LOCAL:
        return "it hides an entry that its directory does not list"
    return f"{until - place} bytes of it belong to no entry"


def _decode(raw: bytes, flags: int) -> str:
    if not raw.isascii() and not flags & UTF8:
        raise ZipError(f"the name {raw!r} has no known encoding")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ZipError(f"the name {raw!r} is not UTF-8") from error


def _check_kind(name: str, flags: int, method: int, mode: int) -> None:
    if flags & ENCRYPTED:
        raise ZipError(f"entry {name!r} is encrypted")
    if flags & DESCRIPTOR:
        raise ZipError(f"entry {name!r} has its size behind its data (a data descriptor)")
    if flags & ~(UTF8 | DEFLATE_LEVEL):
        raise ZipError(f"entry {name!r} has unknown flags {flags:#x}")
    if method not in (STORED, DEFLATED):
        raise ZipError(f"entry {name!r} is compressed in an unknown way ({method})")
    if stat.S_IFMT(mode) not in (0, stat.S_IFDIR if name.endswith("/") else stat.S_IFREG):
        raise ZipError(f"entry {name!r} is a {'symbolic link' if stat.S_ISLNK(mode) else 'special file'}")
    if mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX):
        raise ZipError(f"entry {name!r} has a special mode {stat.S_IMODE(mode):o}")


def _check_extras(name: str, extra: bytes) -> None:
    place = 0
    while place < len(extra):
        if place + 4 > len(extra):
            raise ZipError(f"entry {name!r} has a damaged extra field")
        kind, size = struct.unpack_from("<2H", extra, place)
        if kind not in HARMLESS_EXTRAS:
            raise ZipError(f"entry {name!r} has an extra field {kind:#06x}, which could say another name or size")
        place += 4 + size
    if place != len(extra):
        raise ZipError(f"entry {name!r} has a damaged extra field")


def _check_names(entries: list[Entry]) -> None:
    """Check that each stays within the folder that it is extracted to, and no two are one file on any file system."""
    seen: dict[str, str] = {}
    for entry in entries:
        name = entry.name.removesuffix("/")
        if not NAME.fullmatch(name):
            raise ZipError(f"the name {entry.name!r} has characters that no name should have")
        if name.startswith("/"):
            raise ZipError(f"the name {entry.name!r} is an absolute path")
        if BAD_PARTS & set(name.split("/")):
            raise ZipError(f"the name {entry.name!r} leads out of its folder")
        folded = unicodedata.normalize("NFC", name).casefold()
        if folded in seen:
            raise ZipError(f"the names {seen[folded]!r} and {entry.name!r} are one file")
        seen[folded] = entry.name
    for folded, name in seen.items():
        parents = folded.split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            parent = seen.get("/".join(parents[:depth]))
            if parent is not None and not parent.endswith("/"):
                raise ZipError(f"{parent!r} is a file, and the folder of {name!r}")


def _check_sizes(entries: list[Entry]) -> None:
    if sum(entry.size for entry in entries) > MOST_BYTES:
        raise ZipError(f"its entries would be over {MOST_BYTES >> 30} GiB")
    for entry in entries:
        if entry.size > SMALL and entry.size > MOST_RATIO * entry.packed:
            raise ZipError(f"entry {entry.name!r} would grow {entry.size // max(1, entry.packed)} times (a bomb)")
        if entry.method == STORED and entry.size != entry.packed:
            raise ZipError(f"entry {entry.name!r} is stored, with two sizes")
        if entry.is_folder and entry.size:
            raise ZipError(f"the folder {entry.name!r} has content")


def read_blocks(data: Data, entry: Entry) -> Iterator[bytes | memoryview]:
    """Yield its bytes. Raises ZipError at the end where they are not those that its size and CRC were written for."""
    crc = total = 0
    try:
        for block in _extract(data, entry):
            crc, total = zlib.crc32(block, crc), total + len(block)
            if total > entry.size:
                break
            yield block
        if (crc, total) != (entry.crc, entry.size):
            raise zlib.error("another size or CRC")
    except zlib.error as error:
        raise ZipError(f"its entry {entry.name} is damaged") from error


def _extract(data: Data, entry: Entry) -> Iterator[bytes | memoryview]:
    end = entry.start + entry.packed
    pieces = (data[place : min(place + BLOCK, end)] for place in range(entry.start, end, BLOCK))
    if entry.method == STORED:
        yield from pieces
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    for piece in pieces:
        waiting: bytes | memoryview = piece
        while len(waiting) and not inflater.eof:
            yield inflater.decompress(waiting, BLOCK)
            waiting = inflater.unconsumed_tail
        if inflater.eof:
            break
    yield inflater.flush()
    if inflater.unused_data or not inflater.eof or next(pieces, None) is not None:
        raise zlib.error("the data end before the entry does, or after it")
