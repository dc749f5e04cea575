"""What takes room on the disk, and which exports may go: those that a build makes again."""

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mar_tools.locking import building
from vision_serving.errors import ConfigError

DAY_S = 86400.0
GB = 1e9


@dataclass(frozen=True)
class Export:
    """All that builds of one model left in the folder for exports. last_use: seconds since 1970, of its newest file."""

    folder: Path
    size_bytes: int
    last_use: float

    @property
    def days(self) -> float:
        return (time.time() - self.last_use) / DAY_S


def measure(folder: Path) -> tuple[int, float]:
    """Return the bytes on the disk below a folder, and when the newest file was written. Links are not followed."""
    size, newest = 0, folder.lstat().st_mtime
    for path in folder.rglob("*"):
        try:
            status = path.lstat()
        except FileNotFoundError:  # a build or a log that rolls over removes what we have just listed
            continue
        size += status.st_blocks * 512
        newest = max(newest, status.st_mtime)
    return size, newest


def read_exports(exports: Path) -> list[Export]:
    """Return the exports of all models, the oldest first."""
    folders = (
        (path for path in exports.iterdir() if path.is_dir() and not path.is_symlink()) if exports.is_dir() else ()
    )
    return sorted((Export(folder, *measure(folder)) for folder in folders), key=lambda export: export.last_use)


def choose_old(exports: Sequence[Export], most_days: float | None, most_gb: float | None) -> list[Export]:
    """Return those that were not used for so many days, and of the others the oldest until the rest has room."""
    chosen = [export for export in exports if most_days is not None and export.days > most_days]
    left = [export for export in exports if export not in chosen]
    size = sum(export.size_bytes for export in left)
    while left and most_gb is not None and size > most_gb * GB:
        chosen.append(left.pop(0))
        size -= chosen[-1].size_bytes
    return chosen


def remove(exports: Sequence[Export]) -> Iterator[tuple[Export, str]]:
    """Remove each, and yield it with why it stays, empty where it is gone: none is taken from under a build."""
    for export in exports:
        try:
            with building(export.folder.parent, export.folder.name):
                shutil.rmtree(export.folder)
        except ConfigError:
            yield export, "a build works there"
        except OSError as error:
            yield export, f"{error.strerror} ({error.filename})"
        else:
            yield export, ""
