"""What a start leaves for the commands that come later, beside its config.properties and whatever their shells are."""

import os
from collections.abc import Mapping
from pathlib import Path

import orjson
from pydantic import Field

from mar_tools.serving.address import state_folder
from vision_serving.validation import StrictModel, parse_config, read_json


class StartRecord(StrictModel):
    """temporary: its own folder. left_out: why, by archive. log_sizes: bytes of each log that earlier starts wrote."""

    temporary: str = ""
    left_out: dict[str, str] = Field(default={})
    log_sizes: dict[str, int] = Field(default={})

    def with_left_out(self, reasons: Mapping[str, str]) -> "StartRecord":
        return self.model_copy(update={"left_out": {**self.left_out, **reasons}})

    def write(self, config: Path) -> None:
        """Write it whole or not at all, for the owner alone."""
        path = record_path(config)
        written = path.with_suffix(".new")
        written.touch(mode=0o600)
        written.write_bytes(orjson.dumps(self.model_dump()))
        os.replace(written, path)


def record_path(config: Path) -> Path:
    return state_folder(config) / "logs" / f"{config.resolve().name}.start.json"


def read_start_record(config: Path) -> StartRecord:
    """Return empty for a server that another command started."""
    path = record_path(config)
    document = read_json(path, "restart the server") if path.is_file() else {}
    return parse_config(StartRecord, document, str(path))
