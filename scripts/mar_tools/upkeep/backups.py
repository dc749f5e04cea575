"""One file with all that a server cannot make again, and the same server from it elsewhere."""

import hashlib
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from pydantic import Field

from mar_tools.archives.policy import KEYS, list_trusted_keys
from mar_tools.archives.signing import signature_path
from mar_tools.command_line import ROOT
from mar_tools.serving.address import read_address
from mar_tools.serving.processes import find_frontend
from mar_tools.serving.torchserve_api import ServerError
from vision_serving.errors import ConfigError
from vision_serving.validation import StrictModel, parse_config, read_json
from vision_serving.worker.model_card import digest_file
from vision_serving.worker.server_settings import choose_state_folder, read_properties, read_text

MANIFEST = "backup.json"
SETTINGS = "settings/config.properties"
# In `front/`: digests of the clients' keys, its own certificate, and the owner's additions.
FRONT = ("clients.map", "certificate.pem", "certificate.key", "local/*.conf")


class SavedFile(StrictModel):
    """mode: its permissions, as an octal number."""

    sha256: str
    mode: str = Field(pattern="^[0-7]{3}$")


class Manifest(StrictModel):
    """What a backup holds: files by their names in it. saved: when, in UTC."""

    saved: str
    files: dict[str, SavedFile]


@dataclass(frozen=True)
class Places:
    """Where the parts of a server lie: those of a checkout, or of settings that are yet to be put there."""

    config: Path
    store: Path
    state: Path
    trusted: str

    @classmethod
    def of(cls, config: Path, text: str) -> "Places":
        values, folder = read_properties(text), config.absolute().parent
        state = choose_state_folder(folder, values)
        return cls(config, folder / values.get("model_store", "model_store"), state, values.get(KEYS, ""))

    def path_of(self, name: str) -> Path:
        """Return where a file of a backup belongs. Raises ConfigError for a name that no backup of ours has."""
        part, _, rest = name.partition("/")
        folders = {"settings": self.config.absolute().parent, "models": self.store, "state": self.state}
        if part not in folders or not rest or ".." in Path(rest).parts or Path(rest).is_absolute():
            raise ConfigError(f"{name}: no file of a backup; expected {', '.join(folders)} and a path below")
        if name == SETTINGS:
            return self.config
        return ROOT / "deploy/nginx/front.yaml" if name == "settings/front.yaml" else folders[part] / rest

    def list_files(self, samples: bool) -> Iterator[tuple[str, Path]]:
        """Yield the files that there are, by their names in a backup."""
        folder = self.config.absolute().parent
        found = [(SETTINGS, self.config), ("settings/front.yaml", ROOT / "deploy/nginx/front.yaml")]
        found.append(("settings/log4j2.xml", folder / "log4j2.xml"))
        archives = sorted(self.store.glob("*.mar"))
        found += [(f"models/{path.name}", path) for each in archives for path in (each, signature_path(each))]
        keys = [Path(os.path.normpath(path)) for path in list_trusted_keys(folder, self.trusted)]
        beside = [path for path in keys if path.is_relative_to(folder)]  # others have no place on another machine
        found += [(f"settings/{path.relative_to(folder)}", path) for path in beside]
        kept = [*(f"front/{pattern}" for pattern in FRONT), "upgrades.json", *(["samples/**/*"] if samples else [])]
        for pattern in kept:
            found += [(f"state/{path.relative_to(self.state)}", path) for path in sorted(self.state.glob(pattern))]
        return ((name, path) for name, path in found if path.is_file())


def save(config: Path, target: Path, samples: bool) -> Manifest:
    """Write a backup, whole or not at all, that its owner alone can read. The server may run meanwhile."""
    read_address(config)
    if target.is_dir():
        raise ConfigError(f"{target}: a folder; expected the file to write, such as {target / 'vision.tar'}")
    if target.exists() and not target.is_file():  # root would replace a device by a file
        raise ConfigError(f"{target}: no ordinary file; expected the file to write, such as vision.tar")
    if not target.parent.is_dir():
        raise ConfigError(f"{target.parent}: no such folder; make it, or write the backup into another")
    files = dict(Places.of(config, read_text(config)).list_files(samples))
    partial = target.with_name(f".{target.name}.part")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    try:
        with tarfile.open(partial, "w") as backup:
            saved: dict[str, SavedFile] = {}
            for name, path in files.items():
                with suppress(FileNotFoundError):  # the server removes old samples meanwhile
                    saved[name] = _add(backup, name, path)
            manifest = Manifest(saved=datetime.now(timezone.utc).isoformat(timespec="seconds"), files=saved)
            content = manifest.model_dump_json(indent=2).encode()
            entry = tarfile.TarInfo(MANIFEST)
            entry.size, entry.mode = len(content), 0o600
            backup.addfile(entry, io.BytesIO(content))
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return manifest


def _add(backup: tarfile.TarFile, name: str, path: Path) -> SavedFile:
    """Add one file as long as it is now; another one may take its place meanwhile, or more be written to its end."""
    with path.open("rb") as content:
        entry = backup.gettarinfo(arcname=name, fileobj=content)
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        hashing = Hashing(content)
        backup.addfile(entry, hashing)
    return SavedFile(sha256=hashing.digest.hexdigest(), mode=f"{entry.mode & 0o777:03o}")


class Hashing:
    """Reads on, and hashes what was read."""

    def __init__(self, content: BinaryIO) -> None:
        self._content, self.digest = content, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        block = self._content.read(size)
        self.digest.update(block)
        return block


def restore(source: Path, config: Path, force: bool) -> dict[str, Path]:
    """Put the files of a backup where its settings say, once all are known to be whole; return where each is.

    Raises ServerError while that server runs, ConfigError for a damaged backup, and for files that are there already
    with another content unless `force`.
    """
    if config.is_file() and find_frontend(config) is not None:
        raise ServerError(f"the server of {config} runs; stop it first: python scripts/serve_models.py stop")
    config.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".restore-", dir=config.absolute().parent) as folder:
        manifest = unpack(source, Path(folder))
        places = Places.of(config, read_text(Path(folder) / SETTINGS))
        targets = {name: places.path_of(name) for name in manifest.files}
        if not force:
            refuse_others(manifest, targets)
        in_the_way = [str(path) for path in targets.values() if path.is_dir()]
        if in_the_way:
            raise ConfigError(f"{in_the_way[0]}: a folder, where the backup has a file; move it away")
        _put(Path(folder), manifest, targets)
    return targets


def _put(folder: Path, manifest: Manifest, targets: Mapping[str, Path]) -> None:
    """Put the files of a folder in their places, when each lies beside its own."""
    beside = {name: path.with_name(f".{path.name}.restored") for name, path in targets.items()}
    try:
        for name, new in beside.items():
            mode = 0o700 if name.startswith("state/") else 0o777  # a service's own user reads settings and archives
            new.parent.mkdir(parents=True, exist_ok=True, mode=mode)
            shutil.move(folder / name, new)
            new.chmod(int(manifest.files[name].mode, 8))
        for name, new in beside.items():
            os.replace(new, targets[name])
    finally:
        for new in beside.values():
            with suppress(OSError):  # of a place where none could be put
                new.unlink(missing_ok=True)


def unpack(source: Path, folder: Path) -> Manifest:
    """Unpack a backup, and check each file. Raises ConfigError."""
    expected = "expected what `save` writes, whole"
    try:
        with tarfile.open(source, "r:") as backup:  # of no compression, whose readers have errors of their own
            _copy_files(backup, folder)
    except FileNotFoundError as error:
        raise ConfigError(f"{source}: no such file; {expected}") from error
    except (OSError, tarfile.TarError, EOFError) as error:
        raise ConfigError(f"{source}: no backup, or a damaged one ({error}); {expected}") from error
    if not (folder / MANIFEST).is_file():  # it is the last file
        raise ConfigError(f"{source}: no backup, or a damaged one (it holds no {MANIFEST}); {expected}")
    manifest = parse_config(Manifest, read_json(folder / MANIFEST), str(source))
    for name, saved in manifest.files.items():
        path = folder / name
        if not path.is_file() or digest_file(path) != saved.sha256:
            raise ConfigError(f"{source}: {name} is damaged or missing; take another backup")
    if SETTINGS not in manifest.files:
        raise ConfigError(f"{source}: holds no {SETTINGS}; {expected}")
    return manifest


def _copy_files(backup: tarfile.TarFile, folder: Path) -> None:
    """Write the plain files of a backup, and nothing outside of the folder. Pythons before 3.11.4 have no filter."""
    for member in backup:
        name = PurePosixPath(member.name)
        content = backup.extractfile(member) if member.isfile() else None
        if content is None or name.is_absolute() or ".." in name.parts:
            raise tarfile.TarError(f"{member.name} is no plain file within it")
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with content, target.open("wb") as copy:
            shutil.copyfileobj(content, copy)


def refuse_others(manifest: Manifest, targets: Mapping[str, Path]) -> None:
    """Raises ConfigError where other files stand in the places of those to restore."""
    others = [
        str(path)
        for name, path in targets.items()
        if path.is_file() and digest_file(path) != manifest.files[name].sha256
    ]
    if others:
        raise ConfigError(
            f"there with another content: {', '.join(others[:5])}{', ...' * (len(others) > 5)}; --force replaces them"
        )
