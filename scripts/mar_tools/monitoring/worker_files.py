"""The files of all workers of one server as metrics; those of workers that have ended become one.

A worker holds a lock on its files while it lives. The journal says which files are in the sums already: it changes in
one step, so an exporter that is killed at any moment neither loses a count nor counts it twice.
"""

import fcntl
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import orjson
from prometheus_client import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

KINDS = ("counter", "histogram")
JOURNAL = "journal.json"


class WorkerFiles:
    """folder: where the workers of one server write, and nobody else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._journal = folder / JOURNAL

    def read(self) -> list[Metric]:
        """Return the sums over all workers since the start of the server."""
        sums, included = self._read_journal()
        workers = [path for path in self._list() if path.name not in included and path.stat().st_size]
        ended = [path for path in workers if not _is_written(path)]
        if len(ended) > len(KINDS):  # the files of more than one
            self._merge([*sums, *ended], {path.name for path in ended} | included)
            return self.read()
        for name in included:  # what an exporter that was killed has left
            (self._folder / name).unlink(missing_ok=True)
        return list(MultiProcessCollector.merge(list(map(str, [*sums, *workers]))))  # type: ignore[no-untyped-call]

    def _list(self) -> list[Path]:
        return [path for kind in KINDS for path in sorted(self._folder.glob(f"{kind}_[0-9]*.db"))]

    def _read_journal(self) -> tuple[list[Path], set[str]]:
        """Return the files with the sums, and the names of those that they hold."""
        with suppress(FileNotFoundError):
            document = orjson.loads(self._journal.read_bytes())
            return [self._folder / name for name in document["sums"]], set(document["included"])
        return [], set()

    def _merge(self, files: Sequence[Path], included: set[str]) -> None:
        former, _ = self._read_journal()
        number = 1 + max((int(path.stem.rpartition("-")[2]) for path in former), default=0)
        sums = [self._folder / f"{kind}_sums-{number}.db" for kind in KINDS]
        for path in sums:
            path.unlink(missing_ok=True)
            _write_sums(path, [file for file in files if file.name.split("_")[0] == path.name.split("_")[0]])
        written = self._journal.with_suffix(".new")
        written.write_bytes(orjson.dumps({"sums": [path.name for path in sums], "included": sorted(included)}))
        os.replace(written, self._journal)
        for path in former:
            path.unlink(missing_ok=True)


def _write_sums(path: Path, files: Iterable[Path]) -> None:
    sums: dict[str, float] = {}
    for file in files:
        for key, value, _, _ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
            sums[key] = sums.get(key, 0.0) + value
    stored = MmapedDict(str(path))  # type: ignore[no-untyped-call]
    for key, value in sums.items():
        stored.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
    stored.close()  # type: ignore[no-untyped-call]


def _is_written(path: Path) -> bool:
    """Return whether a worker that lives has it open, or made it just now: it locks a file that is empty yet."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return path.stat().st_size == 0
