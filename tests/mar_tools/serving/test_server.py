from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock

from mar_tools.serving.archive_choice import Choice
from mar_tools.serving.config_file import with_values
from mar_tools.serving.health import Health
from mar_tools.serving.ports import free_addresses
from mar_tools.serving.server import Server
from mar_tools.serving.start_record import mark_stopped, stop_mark
from mar_tools.serving.torchserve_api import ServerError


def test_stopping_what_does_not_run_leaves_the_tokens_of_another_server(tmp_path: Path) -> None:
    (tmp_path / "config.properties").write_text(with_values("", free_addresses()))
    (tmp_path / "key_file.json").write_text("{}")
    assert not Server(tmp_path / "config.properties").stop()
    assert (tmp_path / "key_file.json").exists()


def test_of_two_starts_at_once_one_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "config.properties"
    config.write_text(with_values("", free_addresses()))
    (tmp_path / "logs").mkdir()
    with FileLock(tmp_path / "logs" / "config.properties.lock"):  # which the other one holds
        with pytest.raises(ServerError, match="is being started by another command"):
            Server(config).start(5, lambda step: None)
        assert Server(config).process() is None


class StoppedServer(Server):
    """One that another command stops while it starts."""

    def _prepare(self) -> tuple[Choice, Path]:
        return Choice({}, {}, ()), self.folder

    def _launch(self, choice: Choice, place: Path) -> None:
        mark_stopped(self.config)

    def _wait_until_ready(self, *arguments: object) -> list[Health]:
        return []


def test_a_stop_during_a_start_or_a_restart_is_heeded(tmp_path: Path) -> None:
    config = tmp_path / "config.properties"
    config.write_text(with_values("", free_addresses()))
    server = StoppedServer(config)
    for begin in (server.start, partial(server.restart, server.stop)):
        with pytest.raises(ServerError, match="another command stopped it during its start"):
            begin(5, lambda step: None, lambda text: None)
        assert stop_mark(config).exists()
