"""One process at a time: two builds in one folder would remove each other's unfinished exports, two starts a server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vision_serving.errors import ConfigError, VisionServingError

LOCK = ".lock"


@contextmanager
def building(exports: Path, name: str) -> Iterator[None]:
    """Raises ConfigError while another process builds the same model."""
    folder = exports / name
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"{folder}: another build works there; wait until it has ended, or give another folder with --exports"
    with locked(folder / LOCK, ConfigError(busy)):
        yield


@contextmanager
def locked(file: Path, otherwise: VisionServingError) -> Iterator[None]:
    """Raises `otherwise` while another process holds it."""
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise otherwise from error
    try:
        yield
    finally:
        lock.release()
