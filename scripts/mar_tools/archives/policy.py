"""Which archives this machine serves, as its config.properties says; TorchServe sees no other.

    vision_archives=well_formed        the default: ours whole and unchanged, another's well-formed
    vision_archives=ours               ours alone
    vision_trusted_keys=keys/*.pub     and only what one of these keys has signed, where nobody else can change it

The keys are ours: TorchServe ignores what it does not know.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from mar_tools.archives.archive import Archive, open_archive
from mar_tools.archives.checks import check_ours, read_config, verify_archive
from mar_tools.archives.packages import require_packages
from vision_serving.errors import ConfigError
from vision_serving.worker.server_settings import read_properties, read_text

if TYPE_CHECKING:
    from mar_tools.archives.signing import Keys

Taken = Literal["well_formed", "ours"]
MODELS, KEYS = "vision_archives", "vision_trusted_keys"


@dataclass(frozen=True)
class ArchivePolicy:
    """keys: None where no signature is asked for."""

    store: Path
    taken: Taken
    keys: "Keys | None"


def read_policy(config: Path) -> ArchivePolicy:
    """Raises ConfigError for an unknown value, and for keys that are not there."""
    values = read_properties(read_text(config))
    taken = values.get(MODELS, "well_formed")
    if taken not in get_args(Taken):
        raise ConfigError(f"{config}: {MODELS}: expected one of {list(get_args(Taken))}, got {taken!r}")
    folder = config.resolve().parent
    return ArchivePolicy(
        store=folder / values.get("model_store", "model_store"),
        taken="ours" if taken == "ours" else "well_formed",
        keys=_read_keys(config, values[KEYS]) if KEYS in values else None,
    )


def _read_keys(config: Path, value: str) -> "Keys":
    from mar_tools.archives.signing import read_public_keys  # only where signatures are asked for

    folder = config.resolve().parent
    paths = list_trusted_keys(folder, value)
    if not paths:
        raise ConfigError(f"{config}: {KEYS}={value} names no file in {folder}; so no archive would be served")
    for path in (config, *paths):
        require_owned(path)
    return read_public_keys(paths)


def list_trusted_keys(folder: Path, value: str) -> list[Path]:
    """Return the files that `vision_trusted_keys` names. folder: where the settings lie."""
    return [Path(path) for pattern in split_patterns(value) for path in sorted(glob(str(folder / pattern)))]


def split_patterns(value: str) -> list[str]:
    return [pattern.strip() for pattern in value.split(",") if pattern.strip()]


def find_archive(name: str, policy: ArchivePolicy) -> Path:
    """Return the file of the store that a name means, to TorchServe too. Raises ConfigError for paths and addresses."""
    if name != Path(name).name or name == "..":
        what = f"only what is signed there is served ({KEYS})" if policy.keys is not None else "copy it there"
        raise ConfigError(f"{name}: expected the file name of an archive in {policy.store}, no path or URL; {what}")
    return policy.store / name


def check_served(name: str, policy: ArchivePolicy) -> Archive:
    """Return the archive of that name in the store, which TorchServe may be given.

    Raises ConfigError for all else, with its reason.
    """
    path = find_archive(name, policy)
    if policy.keys is not None and path.exists():
        require_owned(path)
    archive = verify_archive(path) if policy.taken == "ours" else open_archive(path)
    if archive.is_ours and policy.taken != "ours":
        check_ours(archive)
    if archive.is_ours:
        require_packages(archive)
    config = archive.manifest["model"].get("configFile")
    if config:
        read_config(archive, str(config))  # as TorchServe does, which has no bounds
    if policy.keys is not None:
        from mar_tools.archives.signing import check_signature

        check_signature(archive, policy.keys)
    return archive


def require_owned(path: Path) -> None:
    """Check all files, folders and links that a path leads through: what was checked must be what is loaded.

    As sshd demands, they belong to this account or to root, and nobody else may write there. A folder like /tmp, where
    each may remove only what is their own, counts as safe. Raises ConfigError.
    """
    try:
        path.stat()  # which finds links that go round in circles
        steps = [(step, step.lstat()) for step in _walk(path)]
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    for step, found in steps:
        mode, owner = stat.S_IMODE(found.st_mode), found.st_uid
        if owner not in (os.getuid(), 0):
            what = f"owned by another user ({owner}), who could change what was checked"
            raise ConfigError(f"{step}: {what}; chown it to {os.getuid()} or to root")
        is_shared = stat.S_ISDIR(found.st_mode) and mode & stat.S_ISVTX
        if mode & 0o022 and not stat.S_ISLNK(found.st_mode) and not is_shared:
            what = f"others may write here (mode {mode:o}), and change what was checked"
            raise ConfigError(f"{step}: {what}; chmod go-w it")


def _walk(path: Path) -> Iterator[Path]:
    """Yield each step of the way to a path from the root, as the system takes it."""
    place, steps = Path("/"), [*reversed(path.absolute().parts)]
    while steps:
        step = steps.pop()
        place = place.parent if step == ".." else place / step
        yield place
        if place.is_symlink():
            steps.extend(reversed(place.readlink().parts))
            place = place.parent
