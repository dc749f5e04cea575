"""What a front says of itself to the exporter of metrics: a file beside the record of the server that it is before."""

import socket
from contextlib import suppress
from pathlib import Path

import orjson

from mar_tools.serving.start_record import write_private
from vision_serving.errors import ConfigError
from vision_serving.validation import StrictModel, parse_config, read_json
from vision_serving.worker.server_settings import state_folder

LISTENING_S = 1.0


class FrontRecord(StrictModel):
    """folder: the front's. clients: the path of its keys. certificate: the path of the one that it shows, or empty.

    It stays where a front ends by itself.
    """

    folder: str
    clients: str
    certificate: str

    def is_running(self) -> bool:
        """Return whether nginx listens. Its process may be another container's, where its number says nothing."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(LISTENING_S)
            try:
                probe.connect(f"{self.folder}/front.sock")
            except TimeoutError:  # as many as it takes wait already
                return True
            except OSError:
                return False
        return True


def write_front_record(config: Path, record: FrontRecord) -> None:
    """Write it; nothing where this user may not write there: a front serves without metrics too."""
    path = _path(config)
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, orjson.dumps(record.model_dump()))


def remove_front_record(config: Path) -> None:
    with suppress(OSError):
        _path(config).unlink(missing_ok=True)


def read_front_record(config: Path) -> FrontRecord | None:
    """Return that of the front that runs, or ended by itself. None where none was started, or it was stopped."""
    with suppress(ConfigError):
        path = _path(config)
        return parse_config(FrontRecord, read_json(path), str(path))
    return None


def _path(config: Path) -> Path:
    return state_folder(config) / "logs" / f"{config.resolve().name}.front.json"
