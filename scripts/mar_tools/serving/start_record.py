"""What a start leaves for the commands that come later, beside its config.properties and whatever their shells are."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import orjson
from pydantic import Field

from vision_serving.errors import ConfigError
from vision_serving.validation import StrictModel, parse_config, read_json
from vision_serving.worker.server_settings import state_folder

SUFFIX = ".start.json"


class StartRecord(StrictModel):
    """What a start found out.

    config: the path of its settings, for a state folder may be shared by mistake. state: the path of that
    folder, which may be a copy. temporary: its own folder.
    left_out: why, by archive. log_sizes: bytes of each log that earlier starts wrote.
    """

    config: str = ""
    state: str = ""
    temporary: str = ""
    left_out: dict[str, str] = Field(default={})
    log_sizes: dict[str, int] = Field(default={})

    def with_left_out(self, reasons: Mapping[str, str]) -> "StartRecord":
        return self.model_copy(update={"left_out": {**self.left_out, **reasons}})

    def write(self, config: Path) -> None:
        """Write it whole or not at all, for the owner alone."""
        places = {"config": str(config.resolve()), "state": str(state_folder(config).resolve())}
        write_private(record_path(config), orjson.dumps(self.model_dump() | places))


def write_private(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, for the owner alone."""
    written = path.with_suffix(".new")
    written.touch(mode=0o600)
    written.write_bytes(content)
    os.replace(written, path)


def record_path(config: Path) -> Path:
    return state_folder(config) / "logs" / f"{config.resolve().name}{SUFFIX}"


def read_start_record(config: Path) -> StartRecord:
    """Return empty for a server that another command started, for another's record, and for one that is lost."""
    record = _read(record_path(config))
    return record if record.config == str(config.resolve()) else StartRecord()


def find_owner(state: Path) -> Path | None:
    """Return the settings whose server started in this state folder, and was not stopped since. None: nobody's."""
    for path in (state / "logs").glob(f"*{SUFFIX}"):
        record = _read(path)
        owner = Path(record.config)
        if owner.is_file() and record.state == str(state.resolve()):  # not of a folder that was copied
            return owner
    return None


def stop_mark(config: Path) -> Path:
    """Return the file that exists from `mark_stopped` to the next start by a command."""
    return record_path(config).with_suffix(".stopped")


def mark_stopped(config: Path) -> None:
    """Tell a watcher, and a start that is under way, that nothing shall run."""
    if find_owner(state_folder(config)) in (None, config.resolve()):
        with suppress(OSError):  # without logs nothing has started; a full disk keeps nobody from stopping
            stop_mark(config).touch(mode=0o600)


def _read(path: Path) -> StartRecord:
    """Read one; empty where a power failure has torn it, for what runs can be found and stopped without it."""
    try:
        return parse_config(StartRecord, read_json(path), str(path))
    except ConfigError:
        return StartRecord()
