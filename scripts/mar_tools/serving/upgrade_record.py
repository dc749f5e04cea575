"""The last upgrade of each model, so that one command takes it back, days later and from another shell too."""

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import orjson

from mar_tools.serving.start_record import write_private
from mar_tools.serving.upgrading import Plan
from vision_serving.errors import ConfigError
from vision_serving.validation import StrictModel, parse_config, read_json
from vision_serving.worker.model_card import digest_file
from vision_serving.worker.server_settings import state_folder

FILE = "upgrades.json"


class ServedArchive(StrictModel):
    """archive: its file in the model store. sha256: empty where the file was gone already."""

    version: str
    archive: str
    sha256: str


class UpgradeRecord(StrictModel):
    """From what to what. at: when, in UTC. written: whether config.properties was changed too."""

    at: str
    old: ServedArchive
    new: ServedArchive
    written: bool


def record_upgrade(config: Path, plan: Plan, written: bool) -> None:
    """Keep what was served before in the place of what was kept of the model, whole or not at all."""
    store = plan.archive.path.parent
    record = UpgradeRecord(
        at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        old=_describe(plan.old_version, store / plan.old_archive),
        new=_describe(plan.version, plan.archive.path),
        written=written,
    )
    path = state_folder(config) / FILE
    known: dict[str, Any] = read_json(path) if path.exists() else {}
    write_private(path, orjson.dumps({**known, plan.model: record.model_dump()}, option=orjson.OPT_INDENT_2))


def _describe(version: str, path: Path) -> ServedArchive:
    return ServedArchive(version=version, archive=path.name, sha256=digest_file(path) if path.is_file() else "")


def read_upgrade(config: Path, model: str) -> UpgradeRecord:
    """Raises ConfigError where there was none."""
    path = state_folder(config) / FILE
    known: dict[str, Any] = read_json(path) if path.exists() else {}
    if model not in known:
        names = f"; there is one of {', '.join(sorted(known))}" if known else ""
        raise ConfigError(f"{path}: no upgrade of {model!r} to take back{names}")
    return parse_config(UpgradeRecord, known[model], f"{path}: {model}")


def check_can_return(record: UpgradeRecord, model: str, store: Path, default: Mapping[str, Any]) -> None:
    """Raises ConfigError unless what serves is what that upgrade brought, and the archive before is as it was."""
    served = str(default["modelVersion"])
    if served != record.new.version:
        raise ConfigError(
            f"{model} {served} is served, and the last upgrade known, of {record.at}, was from {record.old.version} to "
            f"{record.new.version}; upgrade to the archive that you want by its name"
        )
    path = store / record.old.archive
    if not path.is_file():
        raise ConfigError(f"{path}: not there any more; put {model} {record.old.version} back, and try again")
    if record.old.sha256 and digest_file(path) != record.old.sha256:
        raise ConfigError(
            f"{path}: another file than the one that served {model} {record.old.version}; put that back, or upgrade to "
            "this one by its name if it is what you want"
        )
