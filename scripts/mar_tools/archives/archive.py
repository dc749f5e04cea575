"""Read a `.mar`, ours or another's. Nothing here needs PyTorch, so that a server's start does not wait for it.

Java extracts an archive by the headers of its entries and Python by the directory at its end: none is read where they
differ.
"""

import hashlib
import mmap
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from mar_tools.archives.zip_reading import Data, Entry, ZipError, read_blocks, read_entries
from vision_serving.errors import ConfigError

MANIFEST = "MAR-INF/MANIFEST.json"
DIGESTS = "MAR-INF/DIGESTS.json"  # which marks an archive as ours
SBOM = "MAR-INF/sbom.cdx.json"


@dataclass(frozen=True)
class Archive:
    """A well-formed one, every entry of it intact. entries, digests: by name; digests: SHA-256 in hexadecimal."""

    path: Path
    data: Data
    entries: Mapping[str, Entry]
    digests: Mapping[str, str]

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
        try:
            manifest: Mapping[str, Any] = orjson.loads(self.read(MANIFEST))
            named = isinstance(manifest["model"]["modelName"], str)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{self.path}: not a model archive (no usable {MANIFEST})") from error
        if not named or not manifest["model"]["modelName"]:
            raise ConfigError(f"{self.path}: not a model archive ({MANIFEST} names no model)")
        return manifest

    def read(self, name: str) -> bytes:
        """Raises KeyError for a file that is not in it."""
        return b"".join(read_blocks(self.data, self.entries[name]))


def open_archive(path: Path) -> Archive:
    """Raises ConfigError for what two readers could read as two things, and for what is damaged."""
    try:
        data = _map(path)
        entries = {entry.name: entry for entry in read_entries(data)}
        digests = {name: _digest(data, entry) for name, entry in entries.items() if not entry.is_folder}
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such archive; build it with build_model.py") from error
    except OSError as error:
        raise ConfigError(f"{path}: not a readable archive ({error.strerror or error})") from error
    except ZipError as error:
        raise ConfigError(f"{path}: not a readable archive ({error})") from error
    return Archive(path, data, entries, digests)


def _map(path: Path) -> Data:
    with path.open("rb") as file:
        if not path.stat().st_size:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _digest(data: Data, entry: Entry) -> str:
    digest = hashlib.sha256()
    for block in read_blocks(data, entry):
        digest.update(block)
    return digest.hexdigest()


def check_archive(path: Path) -> tuple[str, str]:
    """Return its model name and version.

    Raises ConfigError when a file is not a model archive, or an entry is damaged.
    """
    return open_archive(path).identity


def extract_archive(path: Path, folder: Path) -> None:
    """Unpack a `.mar` as TorchServe would. Raises ConfigError when it is not one."""
    check_archive(path)
    with zipfile.ZipFile(path) as packed:
        packed.extractall(folder)
