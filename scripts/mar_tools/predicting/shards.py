"""A folder of results that no death of a process and no loss of power damages.

A shard holds the rows of neighbours. It is written as `.part-…tmp-PID`, synced to the disk, and named `part-…` when it
is whole. Only the process that holds the folder's lock names shards, so no picture is in two of them. What the shards
hold is what is done. `_run.json` says of which model and options, so that nothing else goes on with them.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psutil

from mar_tools.locking import locked
from mar_tools.predicting.rows import OK, Row, to_table
from vision_serving.errors import ConfigError
from vision_serving.validation import read_json

RUN, LOCK = "_run.json", ".lock"  # readers of Parquet folders leave out what begins with these signs
PARQUET, LINES = "parquet", "jsonl"
DIGEST_BYTES = 16
KEPT_APART = 65536
SHARE_APART = 1 / 16  # of all: sorting them whenever a fixed number is new would take hours for 100 million


class KnownPaths:
    """The names of pictures, 16 bytes each when sorted, and some 10 more for the newest: 10 million take 260 MB."""

    def __init__(self) -> None:
        self._sorted = np.empty(0, f"S{DIGEST_BYTES}")
        self._recent: set[bytes] = set()

    def add(self, name: str) -> bool:
        """Add a name. Return whether it is new."""
        return self.add_digest(digest_name(name))

    def __contains__(self, name: str) -> bool:
        return self.has_digest(digest_name(name))

    def add_digest(self, digest: bytes) -> bool:
        """Add the name of a digest. Return whether it is new."""
        if self.has_digest(digest):
            return False
        self._recent.add(digest)
        if len(self._recent) >= max(KEPT_APART, SHARE_APART * len(self._sorted)):
            self._sorted = np.sort(np.concatenate([self._sorted, np.array(list(self._recent), self._sorted.dtype)]))
            self._recent = set()
        return True

    def has_digest(self, digest: bytes) -> bool:
        """Return whether the name of a digest was added."""
        if digest in self._recent or not len(self._sorted):
            return digest in self._recent
        place = int(np.searchsorted(self._sorted, np.bytes_(digest)))
        return place < len(self._sorted) and bool(self._sorted[place] == np.bytes_(digest))


def digest_name(name: str) -> bytes:
    """Return a digest without zeros at its end, which NumPy's texts of bytes do not tell from their padding."""
    return hashlib.blake2b(name.encode(), digest_size=DIGEST_BYTES).digest().rstrip(b"\0")


class ResultFolder:
    """Shards of one form, and what they hold: `known` names, `rows`, and `failed` of these."""

    def __init__(self, folder: Path, form: str) -> None:
        self.folder, self.form = folder, form
        self.known, self.rows, self.failed = KnownPaths(), 0, 0
        for part in self.parts():
            for name, status in read_outcomes(part):
                self.known.add(name)
                self.rows += 1
                self.failed += status != OK

    def parts(self) -> list[Path]:
        """List the whole shards, in the order of their pictures."""
        return sorted(self.folder.glob(f"part-*.{self.form}"))

    def temporary(self, position: int) -> Path:
        """Return where to write the shard whose first picture is the one of this number."""
        return self.folder / f".part-{position:012d}.{self.form}.tmp-{os.getpid()}"

    def commit(self, temporary: Path, position: int, rows: int, failed: int) -> None:
        """Name a shard that is whole. A name that is taken, where pictures were added meanwhile, gets a number."""
        target, number = self.folder / f"part-{position:012d}.{self.form}", 1
        while target.exists():
            number += 1
            target = self.folder / f"part-{position:012d}-{number}.{self.form}"
        temporary.rename(target)
        sync_folder(self.folder)
        self.rows += rows
        self.failed += failed

    def read_rows(self) -> Iterator[Row]:
        """Yield the rows of all shards of JSON lines, in the order of their pictures."""
        for part in self.parts():
            with part.open("rb") as lines:
                yield from map(orjson.loads, lines)


@contextmanager
def open_folder(folder: Path, form: str, run: dict[str, Any], resume: bool) -> Iterator[ResultFolder]:
    """Open a new folder, or with `resume` one that the same `run` has begun; gone at the end if no shard is in it.

    Raises ConfigError for a folder of something else, or that another process writes.
    """
    is_new = not (folder / RUN).exists()
    if is_new and folder.exists() and any(entry.name != LOCK for entry in folder.iterdir()):
        raise ConfigError(f"{folder}: this folder is there, and holds no results of predict_images.py; give another")
    if not is_new:
        require_same(folder, run, resume)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / LOCK, ConfigError(f"{folder}: another process writes there; wait until it has ended")):
        remove_leftovers(folder)
        if is_new:
            begin(folder, run)
        result = ResultFolder(folder, form)
        try:
            yield result
        finally:
            remove_leftovers(folder)
            if not result.rows:  # nothing stands in the way of another try
                shutil.rmtree(folder)


def begin(folder: Path, run: dict[str, Any]) -> None:
    """Write of what the results in a folder will be."""
    temporary = folder / f".{RUN}.tmp-{os.getpid()}"
    write_synced(temporary, [orjson.dumps(run, option=orjson.OPT_INDENT_2)])
    temporary.rename(folder / RUN)
    sync_folder(folder)


def require_same(folder: Path, run: dict[str, Any], resume: bool) -> None:
    """Raises ConfigError where a result may not go on."""
    if not resume:
        raise ConfigError(f"{folder}: it holds results, which nothing replaces; give --resume to go on with them")
    begun = read_json(folder / RUN)
    assert isinstance(begun, dict)
    for key in sorted({*begun, *run}):
        if begun.get(key) != run.get(key):
            raise ConfigError(
                f"{folder}: cannot go on: it was begun with {key} {begun.get(key)!r}, and this is {run.get(key)!r}; "
                "give what it was begun with, or another --output"
            )


def remove_leftovers(folder: Path) -> None:
    """Remove what dead processes had not finished, and this one."""
    for path in folder.glob(".*.tmp-*"):
        writer = int(path.name.rpartition("-")[2])
        if writer == os.getpid() or not psutil.pid_exists(writer):
            path.unlink(missing_ok=True)


def read_outcomes(part: Path) -> Iterable[tuple[str, int]]:
    """Yield the name and the status of each picture in a shard."""
    if part.suffix == f".{LINES}":
        with part.open("rb") as lines:
            return [(row["path"], row["status"]) for row in map(orjson.loads, lines)]
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(part, columns=["path", "status"])
    return list(zip(table["path"].to_pylist(), table["status"].to_pylist(), strict=True))


def write_shard(path: Path, rows: Sequence[Row], task: str | None) -> None:
    """Write rows to a file, and to the disk. Its name begins `.part-….parquet` or `.part-….jsonl`. Raises OSError."""
    if f".{LINES}." in path.name:
        write_synced(path, (orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
        return
    import pyarrow.parquet

    assert task is not None
    sink = pyarrow.BufferOutputStream()  # a full disk is then told by the system, and not by Arrow
    pyarrow.parquet.write_table(to_table(rows, task), sink, compression="zstd")
    write_synced(path, [sink.getvalue()])


def write_synced(path: Path, content: Iterable[Any]) -> None:
    """Write a new file, and wait until it is on the disk. Raises OSError, with the file's name."""
    try:
        with path.open("wb") as file:
            file.writelines(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path.parent)) from error


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
