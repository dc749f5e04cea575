"""Which archives this machine serves, as its config.properties says; TorchServe sees no other.

    vision_archives=well_formed        the default: ours whole and unchanged, another's well-formed
    vision_archives=ours               ours alone
    vision_trusted_keys=keys/*.pub     and only what one of these keys has signed

The keys are ours: TorchServe ignores what it does not know.
"""

import os
import stat
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from mar_tools.archives.archive import Archive, open_archive
from mar_tools.archives.checks import check_ours, read_config, verify_archive
from vision_serving.errors import ConfigError
from vision_serving.worker.server_settings import read_properties

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
    values = read_properties(config.read_text(encoding="utf-8"))
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
    patterns = [pattern.strip() for pattern in value.split(",") if pattern.strip()]
    paths = [Path(path) for pattern in patterns for path in sorted(glob(str(folder / pattern)))]
    if not paths:
        raise ConfigError(f"{config}: {KEYS}={value} names no file in {folder}; so no archive would be served")
    return read_public_keys(paths)


def check_served(path: Path, policy: ArchivePolicy) -> Archive:
    """Return what TorchServe may be given. Raises ConfigError for all else, with its reason."""
    archive = verify_archive(path) if policy.taken == "ours" else open_archive(path)
    if archive.is_ours and policy.taken != "ours":
        check_ours(archive)
    config = archive.manifest["model"].get("configFile")
    if config:
        read_config(archive, str(config))  # as TorchServe does, which has no bounds
    if policy.keys is not None:
        from mar_tools.archives.signing import check_signature

        _check_owner(policy.store)
        _check_owner(path)
        check_signature(archive, policy.keys)
    return archive


def check_registered(config: Path, name: str) -> None:
    """Check an archive that a running server is asked to register. Raises ConfigError.

    One that is not in the store is left to TorchServe to refuse, unless only signed ones are served.
    """
    policy = read_policy(config)
    path = policy.store / Path(name).name  # as TorchServe looks it up
    if path.is_file():
        check_served(path, policy)
    elif path.is_dir() and path != policy.store:
        raise ConfigError(f"{path}: a folder; expected a .mar, which can be checked")
    elif policy.keys is not None:
        raise ConfigError(f"{name}: not in {policy.store}, and only what is signed there is served ({KEYS})")


def _check_owner(path: Path) -> None:
    """Check the owner: what was checked is what is loaded only where nobody else can change it in between."""
    found = path.stat()
    if found.st_uid not in (os.getuid(), 0):
        raise ConfigError(f"{path}: owned by another user, who could change it after its signature was checked")
    if stat.S_IMODE(found.st_mode) & 0o022:
        raise ConfigError(f"{path}: others may write here, and change what was checked; chmod go-w it")
