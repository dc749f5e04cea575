"""What torch-model-archiver packs, in each of its forms: a `.mar`, a `.tar.gz`, and a folder."""

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mar_tools.archives.archive import DIGESTS, MANIFEST, open_archive, read_manifest
from vision_serving.errors import ConfigError


@dataclass(frozen=True)
class StockArchive:
    """files: contents by name, as a worker sees them."""

    path: Path
    files: Mapping[str, bytes]

    @property
    def is_ours(self) -> bool:
        return DIGESTS in self.files

    @property
    def model(self) -> Mapping[str, Any]:
        """Return what the manifest says of the model. Raises ConfigError where it names none."""
        model: Mapping[str, Any] = read_manifest(self.path, self.files.get(MANIFEST, b""))["model"]
        return model


def read_stock_archive(path: Path) -> StockArchive:
    """Raises ConfigError for what is damaged."""
    if path.is_dir():
        files = {each.relative_to(path).as_posix(): each.read_bytes() for each in path.rglob("*") if each.is_file()}
        return StockArchive(path, files)
    if tarfile.is_tarfile(path):
        return StockArchive(path, _read_tar(path))
    archive = open_archive(path)
    return StockArchive(path, {name: archive.read(name) for name in archive.digests})


def _read_tar(path: Path) -> dict[str, bytes]:
    """Return its files, without the folder of the model's name that they lie in. Nothing is unpacked."""
    try:
        with tarfile.open(path) as archive:
            entries = {PurePosixPath(entry.name): archive.extractfile(entry) for entry in archive if entry.isfile()}
            files = {name: file.read() for name, file in entries.items() if file is not None}
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ConfigError(f"{path}: damaged, or only a part of the file ({error}); copy it again") from error
    top = next(name.parents[1] for name in files if name.parts[-2:] == PurePosixPath(MANIFEST).parts)
    return {name.relative_to(top).as_posix(): content for name, content in files.items() if name.is_relative_to(top)}
