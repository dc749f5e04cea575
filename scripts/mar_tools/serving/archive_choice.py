"""Which archives a server is given: those that it can take. What is wrong with the others is known before it starts."""

import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mar_tools.archives.archive import Archive
from mar_tools.archives.policy import check_served, read_policy
from mar_tools.command_line import name_command
from mar_tools.serving.setting_names import check_settings
from mar_tools.serving.torchserve_api import TorchServeClient
from vision_serving.errors import ConfigError
from vision_serving.validation import find_near
from vision_serving.worker.sample_settings import PICTURES_KEY, SHARE_KEY, read_sampling
from vision_serving.worker.server_settings import MOST_COUNT, read_model, read_models, read_properties, read_text

Identity = tuple[str, str]  # model and version
# Of `models`: TorchServe ends at its start over one that is no number, and does not say which.
LEAST_COUNTS = {"minWorkers": 0, "maxWorkers": 0, "batchSize": 1, "maxBatchDelay": 0, "responseTimeout": 1}
LEAST_COUNTS |= {"startupTimeout": 1, "threads": 1, "memory_headroom_mb": 0}
MOST_COUNTS = {"maxBatchDelay": 10_000}  # as `manage_models.py register` takes: a request may wait for so long
OURS = ("threads", "memory_headroom_mb")  # TorchServe reads its own from a text, too
SETTINGS = (*LEAST_COUNTS, SHARE_KEY, PICTURES_KEY, "defaultVersion", "marName", "runtimeType")


@dataclass(frozen=True)
class Choice:
    """served: what each entry of `--models` holds, in order. left_out: why, by the name of the archive.

    checked: the archives of `served`.
    """

    served: dict[str, Identity]
    left_out: dict[str, str]
    checked: tuple[Archive, ...]

    def require_unchanged(self) -> None:
        """Check, once all are loaded, that what was loaded is what was checked. Raises ConfigError."""
        for archive in self.checked:
            archive.require_unchanged()


def list_entries(properties: str, store: Path) -> list[str]:
    """Return what `load_models` names, as TorchServe's `--models` takes it: `file` or `name=file`."""
    wanted = read_properties(properties).get("load_models", "all")
    if wanted.lower() == "all":
        return sorted(archive.name for archive in store.glob("*.mar"))
    return split_entries(wanted)


def split_entries(wanted: str) -> list[str]:
    return [name.strip() for name in wanted.split(",") if name.strip()]


def file_name(entry: str) -> str:
    return entry.rpartition("=")[2]


def choose_archives(config: Path) -> Choice:
    """Return what a `config.properties` names and its policy allows.

    Of several versions of a model the one with `defaultVersion` comes first: TorchServe makes the first the default.
    Raises ConfigError when every archive is left out, or for settings that cannot be read.
    """
    properties = read_checked(config)
    policy = read_policy(config)
    store = policy.store
    checked: dict[str, Archive] = {}
    left_out: dict[str, str] = {}
    for entry in list_entries(properties, store):
        try:
            checked[entry] = check_served(file_name(entry), policy)
        except ConfigError as error:
            left_out[file_name(entry)] = str(error)
    found = {entry: archive.identity for entry, archive in checked.items()}
    left_out.update(find_twins(found, store))
    served = {entry: identity for entry, identity in found.items() if file_name(entry) not in left_out}
    if left_out and not served:
        raise ConfigError("; ".join(dict.fromkeys(left_out.values())))
    defaults_first = sorted(served, key=lambda entry: not _is_default(properties, *served[entry]))
    return Choice({entry: served[entry] for entry in defaults_first}, left_out, tuple(checked[each] for each in served))


def link_archives(archives: Sequence[Path], store: Path) -> None:
    """Give a store these archives by links, and their signatures as copies: a signature may be no link."""
    for archive in archives:
        (store / archive.name).symlink_to(archive.resolve())
        signature = archive.with_name(f"{archive.name}.sig")
        if signature.is_file():
            shutil.copyfile(signature, store / signature.name)


def check_registered(config: Path, name: str) -> Archive:
    """Check an archive that a running server is asked to register. Raises ConfigError."""
    read_checked(config)
    return check_served(name, read_policy(config))


def read_checked(config: Path) -> str:
    """Return a `config.properties` that has no key which nobody reads. Raises ConfigError."""
    properties = read_text(config)
    check_settings(read_properties(properties))
    check_models(properties)
    return properties


def register_checked(
    client: TorchServeClient, archive: Archive, workers: int, batch_size: int, max_batch_delay_ms: int
) -> Any:
    """Register an archive of the store that was checked.

    Raises ServerError, and ConfigError where another file took its place meanwhile, which is taken out again.
    """
    before = client.versions_of(archive.path.name)
    try:
        return client.register(archive.path.name, workers, batch_size, max_batch_delay_ms)
    finally:  # TorchServe keeps what its workers cannot load
        _take_out_if_changed(client, archive, before)


def _take_out_if_changed(client: TorchServeClient, archive: Archive, before: set[Identity]) -> None:
    try:
        archive.require_unchanged()
    except ConfigError:
        for model, version in client.versions_of(archive.path.name) - before:
            client.unregister(model, version)
        raise


def check_models(properties: str) -> None:
    """Raises ConfigError for `models` that are not JSON of models, versions and settings that somebody reads."""
    try:
        found = {
            (f"config.properties: `models`: {model} {version}", key): value
            for model, versions in read_models(properties).items()
            for version, settings in versions.items()
            for key, value in settings.items()
        }
    except AttributeError as error:
        raise ConfigError('config.properties: `models`: expected {"<model>": {"<version>": {...}}}') from error
    for (place, key), value in found.items():
        if key not in SETTINGS:
            near = find_near(key, SETTINGS)
            hint = f"did you mean {near!r}?" if near else f"expected one of {sorted(SETTINGS)}"
            raise ConfigError(f"{place}: unknown key {key!r}; {hint}")
        if key in LEAST_COUNTS:
            found[place, key] = _read_count(place, key, value)
        if key == "marName" and (not isinstance(value, str) or Path(value).name != value):
            raise ConfigError(f"{place}: marName: expected the name of a file in the model store, got {value!r}")
    for place, _ in found:
        least, most = (found.get((place, key)) for key in ("minWorkers", "maxWorkers"))
        if least is not None and most is not None and least > most:
            raise ConfigError(f"{place}: minWorkers: expected at most maxWorkers, {most}, got {least}")
        read_sampling({key: found[place, key] for key in (SHARE_KEY, PICTURES_KEY) if (place, key) in found}, place)


def _read_count(place: str, key: str, value: object) -> int:
    least, most = LEAST_COUNTS[key], MOST_COUNTS.get(key, MOST_COUNT)
    is_text = key not in OURS and isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value)
    count = int(str(value)) if is_text else value
    if type(count) is not int or not least <= count <= most:
        raise ConfigError(f"{place}: {key}: expected a whole number from {least} to {most}, got {value!r}")
    return count


def find_twins(found: dict[str, Identity], store: Path) -> dict[str, str]:
    """Find archives of one model and version: nobody but their owner knows which is meant."""
    reasons = {}
    for entry, (model, version) in found.items():
        twins = [file_name(other) for other, identity in found.items() if identity == (model, version)]
        if len(twins) > 1:
            names = " and ".join(twins)
            reasons[file_name(entry)] = f"{store}: {names} both hold model {model} {version}; move one away"
    return reasons


def find_unnamed(config: Path, served: Iterable[Identity]) -> list[str]:
    """Return a line for each that `models` does not name: TorchServe hands its workers single requests."""
    models = read_models(read_text(config))
    return [
        f"{config.name} does not name {model} {version} under `models`: it is served without batches; "
        f"`{name_command('tune_model.py', model, '--by-rule')}` names it"
        for model, version in served
        if version not in models.get(model, {})
    ]


def _is_default(properties: str, model: str, version: str) -> bool:
    return bool(read_model(properties, model).get(version, {}).get("defaultVersion"))
