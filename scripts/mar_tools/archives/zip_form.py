"""The one form that our archives have: STORED entries in order of their names, fixed times and modes, nothing between.

A zip file says everything twice, in a header before each entry and in a directory at its end. Java extracts by the
headers and Python by the directory. Here both are computed from name, size and CRC: there is nothing to disagree about.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vision_serving.errors import ConfigError

LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
LOCAL_HEADER = struct.Struct("<4s5H3I2H")
CENTRAL_HEADER = struct.Struct("<4s6H3I5H2I")
END_RECORD = struct.Struct("<4s4H2IH")
UTF8 = 0x800
VERSION = 20  # of the zip format
MADE_BY = 3 << 8 | VERSION  # Unix
FIXED_DATE = 1 << 5 | 1  # 1 January 1980, the earliest that zip can say
FIXED_MODE = 0o100644 << 16
LARGEST = 0xFFFFFFFE  # bytes; more needs zip64, a second way to say each size and place
MOST_ENTRIES = 0xFFFE


@dataclass(frozen=True)
class Stored:
    """An entry as our archives have it."""

    name: str
    size: int
    crc: int


def local_header(entry: Stored) -> bytes:
    name = entry.name.encode()
    sizes = (entry.crc, entry.size, entry.size)
    return LOCAL_HEADER.pack(LOCAL, VERSION, _flags(name), 0, 0, FIXED_DATE, *sizes, len(name), 0) + name


def directory(entries: Iterable[Stored]) -> bytes:
    """Return what follows the last entry: the central directory and the end record."""
    records, offset = [], 0
    for entry in entries:
        name = entry.name.encode()
        sizes = (entry.crc, entry.size, entry.size)
        fixed = (CENTRAL, MADE_BY, VERSION, _flags(name), 0, 0, FIXED_DATE, *sizes, len(name), 0, 0, 0, 0, FIXED_MODE)
        records.append(CENTRAL_HEADER.pack(*fixed, offset) + name)
        offset += LOCAL_HEADER.size + len(name) + entry.size
    central = b"".join(records)
    return central + END_RECORD.pack(END, 0, 0, len(records), len(records), len(central), offset, 0)


def _flags(name: bytes) -> int:
    return 0 if name.isascii() else UTF8


def encode_archive(contents: Mapping[str, bytes]) -> Iterator[bytes]:
    """Yield the bytes of an archive, piece by piece. contents: by name."""
    entries = [Stored(name, len(contents[name]), zlib.crc32(contents[name])) for name in sorted(contents)]
    for entry in entries:
        yield local_header(entry)
        yield contents[entry.name]
    yield directory(entries)


def write_archive(contents: Mapping[str, bytes], target: Path) -> None:
    """Raises ConfigError for what does not fit into an archive without zip64."""
    total = sum(len(content) + LOCAL_HEADER.size + len(name.encode()) for name, content in contents.items())
    if total > LARGEST or len(contents) > MOST_ENTRIES:
        raise ConfigError(f"{target.name}: {len(contents)} files of {total:,} bytes; an archive holds at most 4 GiB")
    with target.open("wb") as file:
        for piece in encode_archive(contents):
            file.write(piece)
