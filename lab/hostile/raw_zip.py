"""Write zip files that no honest writer would: each field of each header as one likes."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mar_tools.archives.zip_form import (
    CENTRAL,
    CENTRAL_HEADER,
    END,
    END_RECORD,
    FIXED_DATE,
    LOCAL,
    LOCAL_HEADER,
    MADE_BY,
    UTF8,
    VERSION,
)

FILE_MODE = 0o100644


@dataclass(frozen=True)
class RawEntry:
    """An entry as ours are, but for what is said otherwise.

    packed: its bytes in the file, where they are not the data; both, local: fields of both headers, or of its own;
    listed: whether the directory has it; before: bytes that lie in front of it; at: an offset in place of its own.
    """

    name: str
    data: bytes
    packed: bytes | None = None
    both: Mapping[str, int] = field(default_factory=dict)
    local: Mapping[str, int] = field(default_factory=dict)
    local_name: str | None = None
    extra: bytes = b""
    mode: int = FILE_MODE
    listed: bool = True
    before: bytes = b""
    at: int | None = None

    @property
    def stored(self) -> bytes:
        return self.data if self.packed is None else self.packed

    def fields(self) -> dict[str, int]:
        plain = {"flags": 0 if self.name.isascii() else UTF8, "method": 0, "time": 0, "crc": zlib.crc32(self.data)}
        return {**plain, "packed": len(self.stored), "size": len(self.data), **self.both}


def write_raw_zip(entries: Sequence[RawEntry], comment: bytes = b"") -> bytes:
    body, directory, listed = b"", b"", 0
    for entry in entries:
        body += entry.before
        offset = len(body) if entry.at is None else entry.at
        if entry.at is None:
            body += _local_header(entry) + entry.stored
        if entry.listed:
            directory += _central_header(entry, offset)
            listed += 1
    return (
        body + directory + END_RECORD.pack(END, 0, 0, listed, listed, len(directory), len(body), len(comment)) + comment
    )


def _local_header(entry: RawEntry) -> bytes:
    name = (entry.local_name or entry.name).encode()
    values = _common({**entry.fields(), **entry.local})
    return LOCAL_HEADER.pack(LOCAL, VERSION, *values, len(name), len(entry.extra)) + name + entry.extra


def _central_header(entry: RawEntry, offset: int) -> bytes:
    name = entry.name.encode()
    values = (
        MADE_BY,
        VERSION,
        *_common(entry.fields()),
        len(name),
        len(entry.extra),
        0,
        0,
        0,
        entry.mode << 16,
        offset,
    )
    return CENTRAL_HEADER.pack(CENTRAL, *values) + name + entry.extra


def _common(values: Mapping[str, int]) -> tuple[int, ...]:
    said = (values["crc"], values["packed"], values["size"])
    return values["flags"], values["method"], values["time"], FIXED_DATE, *said
