"""Image files to compare, calibrate and time with: the user's own, or `examples/photographs` where there are none."""

import errno
import os
import stat
from collections.abc import Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar
from unicodedata import category

from mar_tools.command_line import ROOT
from vision_serving.errors import ConfigError

PHOTOGRAPHS = ROOT / "examples" / "photographs"

Item = TypeVar("Item")
Split = Literal["all", "verification", "calibration"]
READ_BYTES = 1 << 20
VERIFYING_SCENES = {"chelsea", "flower", "rocket"}  # of the photographs; all views of the other scenes calibrate


def find_images(path: Path) -> list[Path]:
    """Return an image file, or the images in a folder and its subfolders, sorted.

    Raises ConfigError where there are none.

    Hidden files and folders are left out, such as the packages in `.venv`.
    """
    if path.is_file():
        return [path]
    suffixes = image_suffixes()
    files = (file for file in path.rglob("*") if file.suffix.lower() in suffixes)
    found = sorted(file for file in files if not any(part[0] == "." for part in file.relative_to(path).parts))
    if not found:
        raise ConfigError(f"{path}: " + ("no images in this folder" if path.is_dir() else "no such file or folder"))
    return found


@cache
def image_suffixes() -> frozenset[str]:
    """Return the ends of the names of image files, in small letters."""
    from vision_serving.pictures.formats import FORMATS  # a command that is given files need not wait for Pillow

    return frozenset(suffix for known in FORMATS.values() for suffix in known.suffixes)


def read_image(path: Path | bytes) -> bytes:
    """Return the bytes of a file. Raises OSError for a pipe or device, which may never end."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # what `open` does beyond it takes as long again
    try:
        found = os.fstat(file)
        if stat.S_ISDIR(found.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), os.fsdecode(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "expected a file, got a pipe or device", os.fsdecode(path))
        content = os.read(file, found.st_size + 1)
        if len(content) != found.st_size or not content:  # a file of gigabytes, one that grows, or one of the kernel's
            content = b"".join([content, *iter(lambda: os.read(file, READ_BYTES), b"")])
        return content
    finally:
        os.close(file)


def choose_images(folder: Path | None, count: int, split: Split = "all") -> list[Path]:
    """Choose up to `count` images of a folder; the photographs where it is None.

    `split` divides the photographs by scene, so that what calibrates does not verify. A user's own folder is taken
    whole.
    """
    if folder is not None:
        return spread_evenly(find_images(folder), count)
    chosen = (path for path in find_images(PHOTOGRAPHS) if split in ("all", split_of(path)))
    return list(islice(chosen, count))


def split_of(photograph: Path) -> Split:
    """Return the split of a photograph, which is called `<number>_<scene>.jpg`."""
    return "verification" if photograph.stem.partition("_")[2] in VERIFYING_SCENES else "calibration"


def spread_evenly(items: Sequence[Item], count: int | None) -> list[Item]:
    """Choose at most `count` of them in order, from all over: the first of a sorted list may well be all alike."""
    if count is None or count >= len(items):
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]


def load_encoded_images(folder: Path | None, count: int, split: Split = "all") -> list[bytes]:
    """Return the bytes of `choose_images`."""
    return [read_image(path) for path in choose_images(folder, count, split)]


def show_name(file: Path | str) -> str:
    """Return a file's name as text for data: bytes that are no UTF-8 as `\\xe9`."""
    return str(file).encode(errors="surrogateescape").decode(errors="backslashreplace")


def show_line(text: Path | str) -> str:
    """Return a name or label for people: control characters, which a terminal obeys, as `\\x1b` too."""
    return "".join(c.encode("unicode_escape").decode() if category(c) == "Cc" else c for c in show_name(text))
