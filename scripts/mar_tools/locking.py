"""One build of a model at a time: two in one folder would remove each other's unfinished exports."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vision_serving.errors import ConfigError

LOCK = ".lock"


@contextmanager
def building(exports: Path, name: str) -> Iterator[None]:
    """Raises ConfigError while another process builds the same model."""
    folder = exports / name
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(
            f"{folder}: another build works there; wait until it has ended, or give another folder with --exports"
        ) from error
    try:
        yield
    finally:
        lock.release()
