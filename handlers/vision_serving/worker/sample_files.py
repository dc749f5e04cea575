"""A model's samples on disk: a ring of files with a limit of bytes and of days, which all of its workers write.

    samples/digits/1764451000123456-4711.jsonl               a line for each request, of one worker
    samples/digits/pictures/1764451000123456-4711/...        the pictures of these lines, where they are kept

A file and its pictures are removed together, the oldest first. A name begins with the microseconds since 1970 when the
file was begun. Whoever removes files by hand disturbs nothing: a worker whose file is gone begins another.
"""

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vision_serving.worker.sample_settings import SampleBounds

SUFFIX, PICTURES, LOCK = ".jsonl", "pictures", ".lock"
FILES = 16  # that a ring has where one worker writes: as much of it goes at a time
LARGEST_SHARE = 8  # of the ring is as much as the pictures of one request may take
BLOCK_BYTES = 4096  # a file takes whole ones
LONGEST_S = 86_400.0  # a file is written for so long, for it is removed by its beginning
DIGITS = 20  # of the bytes in use, in the lock's file


@dataclass(frozen=True)
class SampledPicture:
    """name: of its file, without a folder."""

    name: str
    data: bytes


class SampleFiles:
    """The ring of one model, as one process writes it. All that fails raises OSError."""

    def __init__(self, folder: Path, bounds: SampleBounds) -> None:
        self._folder, self._bounds = folder, bounds
        self._file: int | None = None
        self._path = folder
        self._bytes = 0
        self._begun_s = 0.0

    def fits(self, pictures: Sequence[SampledPicture]) -> bool:
        """Return whether pictures of one request are small enough to be kept."""
        return measure_pictures(pictures) * LARGEST_SHARE <= self._bounds.most_bytes

    def append(self, line: bytes, pictures: Sequence[SampledPicture] = ()) -> None:
        """Write a line, with its line break, and the pictures that it names; what is too much goes first."""
        need = len(line) + measure_pictures(pictures)
        with hold(self._folder) as lock:
            used = read_used(lock)
            if used is None or used + need > self._bounds.most_bytes or self._is_over():
                used = remove_surplus(self._folder, self._bounds, need)
                self._begin()
            try:
                self._write(line, pictures)
            except OSError:
                self.close()  # half a line may stand there
                for picture in pictures:
                    (pictures_of(self._path) / picture.name).unlink(missing_ok=True)
                write_used(lock, None)
                raise
            self._bytes += need
            write_used(lock, used + need)

    def tidy(self) -> None:
        """Remove what is too old, where nobody writes either."""
        if self._folder.is_dir():
            with hold(self._folder) as lock:
                write_used(lock, remove_surplus(self._folder, self._bounds))

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None

    def _is_over(self) -> bool:
        """Return whether this process needs another file: it has none, it is full or old, or somebody removed it."""
        if self._file is None or self._bytes * FILES >= self._bounds.most_bytes:
            return True
        return time.time() - self._begun_s >= LONGEST_S or os.fstat(self._file).st_nlink == 0

    def _begin(self) -> None:
        self.close()
        self._begun_s, self._bytes = time.time(), 0
        self._path = self._folder / f"{int(self._begun_s * 1e6)}-{os.getpid()}{SUFFIX}"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _write(self, line: bytes, pictures: Sequence[SampledPicture]) -> None:
        assert self._file is not None
        if pictures:
            folder = pictures_of(self._path)
            for made in (folder.parent, folder):
                made.mkdir(mode=0o700, exist_ok=True)
            for picture in pictures:
                with open(folder / picture.name, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                    file.write(picture.data)
        if os.write(self._file, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))  # the rest would meet a full disk


def measure_pictures(pictures: Sequence[SampledPicture]) -> int:
    """Return what pictures take on a disk, in bytes."""
    return sum(-(-len(picture.data) // BLOCK_BYTES) * BLOCK_BYTES for picture in pictures)


def pictures_of(file: Path) -> Path:
    """Return the folder with the pictures of a file's lines."""
    return file.parent / PICTURES / file.stem


def list_files(folder: Path) -> list[Path]:
    """Return the files of a model, the oldest first. Raises OSError where they cannot be listed, but for no folder."""
    try:
        paths = [folder / name for name in os.listdir(folder) if name.endswith(SUFFIX)]
    except FileNotFoundError:
        return []
    return sorted((path for path in paths if _begun_us(path) is not None), key=_order)


def remove_surplus(folder: Path, bounds: SampleBounds, need: int = 0) -> int:
    """Remove what is too old, and the oldest until `need` bytes fit; return the bytes that are left. For who holds it.

    A ring that is full loses a file's worth more than it has to, so that not every line removes something.
    """
    sizes = {path: _size_of(path) for path in list_files(folder)}
    used, oldest_us = sum(sizes.values()), (time.time() - bounds.days * 86_400) * 1e6
    spare = bounds.most_bytes // FILES if used + need > bounds.most_bytes else 0
    for path, size in sizes.items():
        if used + need + spare > bounds.most_bytes or (_begun_us(path) or 0) < oldest_us:
            shutil.rmtree(pictures_of(path), ignore_errors=True)
            path.unlink(missing_ok=True)
            used -= size
    _remove_strays(folder)
    return used


def tidy_samples(samples: Path, bounds: SampleBounds) -> None:
    """Remove what is too old of all models, those included that are no longer served. Raises OSError."""
    if samples.is_dir():
        for folder in sorted(samples.iterdir()):
            if folder.is_dir():
                SampleFiles(folder, bounds).tidy()


@contextmanager
def hold(folder: Path) -> Iterator[int]:
    """Hold a model's samples against other processes; made where they are not there. Yield the lock's file."""
    while True:
        for made in (folder.parent, folder):
            made.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.fstat(lock).st_nlink:  # not one whose folder was removed meanwhile
                yield lock
                return
        finally:
            os.close(lock)


def read_used(lock: int) -> int | None:
    """Return the bytes in use as the last writer left them, None where they have to be counted."""
    text = os.pread(lock, DIGITS, 0).strip()
    return int(text) if text.isdigit() else None


def write_used(lock: int, used: int | None) -> None:
    """Write the bytes in use for the next writer. A disk that is full has him count them."""
    with suppress(OSError):
        os.pwrite(lock, (b"" if used is None else b"%d" % used).ljust(DIGITS), 0)


def _order(path: Path) -> tuple[int, str]:
    return _begun_us(path) or 0, path.name


def _begun_us(path: Path) -> int | None:
    begun = path.stem.partition("-")[0]
    return int(begun) if begun.isdecimal() else None


def _size_of(file: Path) -> int:
    """Return the bytes of a file with its pictures, 0 of one that is gone."""
    total = 0
    with suppress(OSError):
        total += file.stat().st_size
        with os.scandir(pictures_of(file)) as pictures:
            total += sum(-(-entry.stat().st_size // BLOCK_BYTES) * BLOCK_BYTES for entry in pictures)
    return total


def _remove_strays(folder: Path) -> None:
    """Remove pictures whose lines are gone."""
    with suppress(OSError):
        for pictures in (folder / PICTURES).iterdir():
            if not (folder / f"{pictures.name}{SUFFIX}").exists():
                shutil.rmtree(pictures, ignore_errors=True)
