"""The files of all workers of one server as metrics; those of workers that have ended become one.

A worker holds a lock on its files while it lives. The journal says which files are in the sums already: it changes in
one step, so an exporter that is killed at any moment neither loses a count nor counts it twice.
"""

import fcntl
import math
import os
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import orjson
from prometheus_client import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

from vision_serving.worker.metrics import ENTRY_BYTES, HEAD_BYTES

KINDS = ("counter", "histogram")
JOURNAL = "journal.json"


class WorkerFiles:
    """folder: where the workers of one server write, and nobody else.

    damaged: the files that the last reading left out, by name, and why.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._journal = folder / JOURNAL
        self.damaged: dict[str, str] = {}

    def read(self) -> list[Metric]:
        """Return the sums over all workers since the start of the server, but for what is damaged."""
        self.damaged = {}
        sums, included = self._read_journal()
        for path in (*(self._folder / name for name in included), *self._list_sums()):
            if path not in sums:  # what an exporter that was killed has left
                path.unlink(missing_ok=True)
        # What is damaged joins no sums: it stays, and stays told. With one reading alone no alert would fire.
        workers = self._choose_whole(self._list())
        ended = [path for path in workers if not _is_written(path)]
        if len(ended) > len(KINDS):  # the files of more than one
            with suppress(OSError):  # of a full disk: they stay as they are
                sums = self._merge([*sums, *ended], [path.name for path in ended])
                workers = [path for path in workers if path not in ended]
        whole = [*self._choose_whole(sums), *workers]
        return list(MultiProcessCollector.merge(list(map(str, whole))))  # type: ignore[no-untyped-call]

    def _list(self) -> list[Path]:
        """Return the files of workers that have begun to write."""
        found = [path for kind in KINDS for path in sorted(self._folder.glob(f"{kind}_[0-9]*.db"))]
        return [path for path in found if _size(path)]

    def _list_sums(self) -> list[Path]:
        return sorted(self._folder.glob("*_sums-*.db"), key=_number)

    def _choose_whole(self, paths: Iterable[Path]) -> list[Path]:
        return [path for path in paths if self._read_values(path) is not None]

    def _read_values(self, path: Path) -> dict[str, float] | None:
        """Return the values of a file, None where they are damaged: the others count all the same."""
        try:
            if path.read_bytes()[3] > 127:  # an empty file, for the library
                raise ValueError("its length is negative")
            values = {key: value for key, value, *_ in MmapedDict.read_all_values_from_file(str(path))}  # type: ignore[no-untyped-call]
            for key, value in values.items():
                _, _, labels, _ = orjson.loads(key)
                if not isinstance(labels, dict) or not 0 <= value < math.inf:
                    raise ValueError(f"{value} of {key[:80]!r}")
        except (FileNotFoundError, ValueError, TypeError, IndexError, RuntimeError, struct.error) as error:
            self.damaged[path.name] = f"{type(error).__name__}: {error}"
            return None
        return values

    def _read_journal(self) -> tuple[list[Path], set[str]]:
        """Return the files with the sums, and the names of those that they hold."""
        try:
            document = orjson.loads(self._journal.read_bytes())
            return [self._folder / name for name in document["sums"]], set(document["included"])
        except FileNotFoundError:
            return [], set()
        except (ValueError, TypeError, KeyError) as error:
            self.damaged[JOURNAL] = f"{type(error).__name__}: {error}"
            kept = self._list_sums()[: len(KINDS)]
            return [path for path in kept if _number(path) == _number(kept[0])], set()

    def _merge(self, files: Sequence[Path], included: Sequence[str]) -> list[Path]:
        """Write new sums, name them in the journal, and return them.

        Raises OSError, and changes nothing, on a full disk.
        """
        former, _ = self._read_journal()
        number = 1 + max(map(_number, former), default=0)
        sums = [self._folder / f"{kind}_sums-{number}.db" for kind in KINDS]
        written = self._journal.with_suffix(".new")
        try:
            for path in sums:
                self._write_sums(path, [file for file in files if file.name.split("_")[0] == path.name.split("_")[0]])
            written.write_bytes(orjson.dumps({"sums": [path.name for path in sums], "included": included}))
            os.replace(written, self._journal)
        except OSError:
            for path in (*sums, written):
                path.unlink(missing_ok=True)
            raise
        for path in (*former, *(self._folder / name for name in included)):
            path.unlink(missing_ok=True)
        return sums

    def _write_sums(self, path: Path, files: Iterable[Path]) -> None:
        sums: dict[str, float] = {}
        for file in files:
            for key, value in (self._read_values(file) or {}).items():
                sums[key] = sums.get(key, 0.0) + value
        with path.open("wb") as space:  # at once: on a full disk, a write to mapped memory would end this process
            os.posix_fallocate(space.fileno(), 0, HEAD_BYTES + sum(len(key) + ENTRY_BYTES for key in sums))
        stored = MmapedDict(str(path))  # type: ignore[no-untyped-call]
        for key, value in sums.items():
            stored.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
        stored.close()  # type: ignore[no-untyped-call]


def _number(sums: Path) -> int:
    return int(sums.stem.rpartition("-")[2])


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _is_written(path: Path) -> bool:
    """Return whether a worker that lives has it open: it locks a file before it has any bytes."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
