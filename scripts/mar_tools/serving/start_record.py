"""What a start leaves for the commands that come later: which archives it left out, and where its logs begin."""

from collections.abc import Mapping
from pathlib import Path

import orjson
from pydantic import Field

from vision_serving.validation import StrictModel, parse_config, read_json

RECORD = "start.json"  # in the server's temporary folder


class StartRecord(StrictModel):
    """left_out: why, by the name of the archive. log_sizes: bytes of each log that earlier starts wrote."""

    left_out: dict[str, str] = Field(default={})
    log_sizes: dict[str, int] = Field(default={})

    def with_left_out(self, reasons: Mapping[str, str]) -> "StartRecord":
        return self.model_copy(update={"left_out": {**self.left_out, **reasons}})

    def write(self, temporary: Path) -> None:
        path = temporary / RECORD
        path.touch(mode=0o600)  # as all there is in this folder
        path.write_bytes(orjson.dumps(self.model_dump()))


def read_start_record(temporary: Path) -> StartRecord:
    """Return empty for a server that another command started."""
    path = temporary / RECORD
    document = read_json(path, "restart the server") if path.is_file() else {}
    return parse_config(StartRecord, document, str(path))
