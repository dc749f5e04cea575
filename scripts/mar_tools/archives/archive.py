"""Read a `.mar`, ours or another's. Nothing here needs PyTorch, so that a server's start does not wait for it.

Java extracts an archive by the headers of its entries and Python by the directory at its end: none is read where they
differ.
"""

import hashlib
import mmap
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from mar_tools.archives.zip_reading import Data, Entry, ZipError, read_blocks, read_entries
from vision_serving.errors import ConfigError
from vision_serving.validation import MOST_BYTES

MANIFEST = "MAR-INF/MANIFEST.json"
DIGESTS = "MAR-INF/DIGESTS.json"  # which marks an archive as ours
SBOM = "MAR-INF/sbom.cdx.json"
State = tuple[int, ...]


@dataclass(frozen=True)
class Archive:
    """A well-formed one, every entry of it intact. entries, digests: by name; digests: SHA-256 in hexadecimal.

    state: of the file that was read, as _identify_state has it.
    """

    path: Path
    data: Data
    entries: Mapping[str, Entry]
    digests: Mapping[str, str]
    state: State

    @property
    def is_ours(self) -> bool:
        return DIGESTS in self.entries

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def identity(self) -> tuple[str, str]:
        """Return model name and version. Raises ConfigError for a manifest without."""
        model = self.manifest["model"]
        return str(model["modelName"]), str(model.get("modelVersion", ""))

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """Raises ConfigError where it has no model with a name."""
        return read_manifest(self.path, self.read_document(MANIFEST) if MANIFEST in self.entries else b"")

    def read(self, name: str) -> bytes:
        """Raises KeyError for a file that is not in it."""
        return b"".join(read_blocks(self.data, self.entries[name]))

    def read_document(self, name: str) -> bytes:
        """Read what is parsed. Raises ConfigError where it is too large for that, KeyError where it is not there."""
        if self.entries[name].size > MOST_BYTES:
            raise ConfigError(f"{self.path}: {_too_large(self.entries[name])}")
        return self.read(name)

    def require_unchanged(self) -> None:
        """Raises ConfigError where its name now leads to another file than the one that was read, or to other bytes."""
        try:
            unchanged = _identify_state(self.path.stat()) == self.state
        except OSError:
            unchanged = False
        if not unchanged:
            raise ConfigError(f"{self.path}: changed after it was checked; what was loaded may be another archive")


def read_manifest(path: Path, document: bytes) -> Mapping[str, Any]:
    """Return the manifest of an archive. Raises ConfigError where it has no model with a name."""
    try:
        manifest: Mapping[str, Any] = orjson.loads(document)
        name = manifest["model"]["modelName"]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: not a model archive (no usable {MANIFEST})") from error
    if not name or not isinstance(name, str):
        raise ConfigError(f"{path}: not a model archive ({MANIFEST} names no model)")
    return manifest


def open_archive(path: Path) -> Archive:
    """Raises ConfigError for what two readers could read as two things, and for what is damaged."""
    try:
        data, state = _map(path)
        entries = {entry.name: entry for entry in read_entries(data)}
        for name in {MANIFEST, DIGESTS} & entries.keys():
            if entries[name].size > MOST_BYTES:
                raise ZipError(_too_large(entries[name]))
        digests = {name: _digest(data, entry) for name, entry in entries.items() if not entry.is_folder}
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such archive; build it with build_model.py") from error
    except OSError as error:
        raise ConfigError(f"{path}: not a readable archive ({error.strerror or error})") from error
    except ZipError as error:
        raise ConfigError(f"{path}: not a readable archive ({error})") from error
    return Archive(path, data, entries, digests, state)


def _too_large(entry: Entry) -> str:
    return f"{entry.name} has {entry.size:,} bytes; expected at most {MOST_BYTES:,}"


def _map(path: Path) -> tuple[Data, State]:
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:  # of a pipe, too
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ZipError("it is no file")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if found.st_size else b""
        return memoryview(data), _identify_state(found)


def _identify_state(found: os.stat_result) -> State:
    """Return what differs where a file is replaced or written to."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _digest(data: Data, entry: Entry) -> str:
    digest = hashlib.sha256()
    for block in read_blocks(data, entry):
        digest.update(block)
    return digest.hexdigest()


def check_archive(path: Path) -> tuple[str, str]:
    """Return its model name and version. Raises ConfigError for what is no model archive, and what is damaged."""
    return open_archive(path).identity


def extract_archive(path: Path, folder: Path) -> tuple[str, str]:
    """Unpack a `.mar` as TorchServe would. Return its model and version. Raises ConfigError when it is not one."""
    archive = open_archive(path)
    identity = archive.identity  # raises where it has none
    for entry in archive.entries.values():
        target = folder / entry.name
        (target if entry.is_folder else target.parent).mkdir(parents=True, exist_ok=True)
        if not entry.is_folder:
            with target.open("wb") as file:
                file.writelines(read_blocks(archive.data, entry))
    return identity
