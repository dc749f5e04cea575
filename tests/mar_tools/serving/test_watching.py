"""A frontend that has ended, fallen silent or only collects memory is started again; one that was stopped is not."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from filelock import FileLock
from other_users import looking_like

from mar_tools.serving import watching
from mar_tools.serving.config_file import with_values
from mar_tools.serving.ports import free_addresses
from mar_tools.serving.processes import FRONTEND
from mar_tools.serving.server import Server
from mar_tools.serving.start_checks import prepare_logs
from mar_tools.serving.start_record import mark_stopped
from mar_tools.serving.torchserve_api import ServerError
from mar_tools.serving.watching import watch

ANSWERS, SILENT, ENDED, STOPPED, BUSY, RESTARTED = "answers", "silent", "ended", "stopped", "busy", "restarted"
BUSY_SILENT, STOPPED_SILENT = "silent while another command starts it", "silent, and stopped"
COLLECTS, UNKNOWN = "answers, and collects memory meanwhile", "answers, and keeps no counters"


class TimedServer(Server):
    """A real server's folders and processes, in the next state of a list each time that the watcher has waited.

    Its frontend is a process that looks like one, and its start makes such a process.
    """

    is_stopped_meanwhile = False

    def __init__(self, config: Path, states: list[str]) -> None:
        super().__init__(config)
        self._stack, self._states, self.now = ExitStack(), iter(states), ""
        self._lock = FileLock(prepare_logs(config) / f"{config.name}.lock")
        self.starts, self.now_s, self.collected_s = 0, 0.0, 100.0

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.enter(next(self._states))
        self.collected_s += 0.8 * seconds if self.now == COLLECTS else 0.02 * seconds

    def collecting_s(self, process: psutil.Process) -> float | None:
        return None if self.now == UNKNOWN else self.collected_s

    def clock(self) -> float:
        return self.now_s

    def enter(self, state: str) -> None:
        self.now = state
        self._lock.release()
        if state in (ENDED, STOPPED, RESTARTED):
            self._stack.close()
        if state == RESTARTED:
            self.run()
        if state in (STOPPED, STOPPED_SILENT):
            mark_stopped(self.config)
        if state in (BUSY, BUSY_SILENT):
            self._lock.acquire()
        if state == BUSY:
            self._stack.close()

    def run(self) -> None:
        process = self._stack.enter_context(looking_like("java", FRONTEND, "-f", str(self.config)))
        self._stack.callback(psutil.Process(process.pid).wait)
        self._stack.callback(process.kill)

    def answers(self, timeout_s: float = 0) -> bool:
        silent = self.now in (SILENT, BUSY_SILENT, STOPPED_SILENT)
        self.now_s += timeout_s if silent else 0
        return not silent

    def _prepare(self) -> tuple[None, None]:  # type: ignore[override]
        return None, None

    def _start(self, *arguments: object) -> list[str]:  # type: ignore[override]
        self.starts += 1
        if self.is_stopped_meanwhile:
            mark_stopped(self.config)
            raise ServerError("TorchServe ended during start")
        self.run()
        return [Started()]  # type: ignore[list-item]

    def close(self) -> None:
        self._lock.release()
        self._stack.close()


class Started:
    healthy = True


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.properties"
    path.write_text(with_values("", {**free_addresses(), "disable_token_authorization": "true"}))
    return path


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def watched(
    config: Path, states: list[str], monkeypatch: pytest.MonkeyPatch, opened: ExitStack, runs: bool = True
) -> tuple[TimedServer, list[str]]:
    server = TimedServer(config, states)
    opened.callback(server.close)
    made: list[Path] = []

    def renew(config: Path) -> TimedServer:
        made.append(config)
        return server

    monkeypatch.setattr(watching, "Server", renew)
    monkeypatch.setattr(watching, "collecting_s", server.collecting_s)
    if runs:
        server.run()
    heard: list[str] = []
    watch(server, 1, heard.append, server.wait, server.clock)
    assert all(path == config for path in made)
    said = list(map(without_pid, heard))
    assert said.count(WATCHING) == 1 + len(made)
    return server, [line for line in said if line != WATCHING] + [AGAIN] * len(made)


def without_pid(line: str) -> str:
    assert re.search(r"frontend \d+", line)
    return re.sub(r"frontend \d+", "frontend", line)


WATCHING, STARTED, AGAIN = "watching frontend", "started frontend", "new settings"
HAS_ENDED, WAS_SILENT = "frontend has ended", "frontend was silent for 30 s"
COLLECTED = "frontend collected memory for "


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ([ANSWERS, STOPPED], []),
        ([ENDED, ANSWERS, STOPPED], [HAS_ENDED, STARTED, AGAIN]),
        ([BUSY, BUSY, BUSY, RESTARTED, STOPPED], [AGAIN]),
        ([SILENT, ANSWERS, STOPPED], []),
        ([SILENT, SILENT, ANSWERS, STOPPED], [WAS_SILENT, STARTED, AGAIN]),
        ([SILENT, *[BUSY_SILENT] * 3, SILENT, ANSWERS, STOPPED], []),
        ([SILENT, STOPPED_SILENT], []),
        ([RESTARTED, SILENT, ANSWERS, RESTARTED, STOPPED], [AGAIN, AGAIN]),
        ([*[COLLECTS] * 5, ANSWERS, STOPPED], [COLLECTED + "16 of 20 s", STARTED, AGAIN]),
        ([*[ANSWERS] * 9, *[COLLECTS] * 5, STOPPED], [COLLECTED + "16 of 30 s", STARTED, AGAIN]),
        ([COLLECTS, COLLECTS, *[ANSWERS] * 4, COLLECTS, COLLECTS, *[ANSWERS] * 4, STOPPED], []),
        ([*[COLLECTS] * 3, RESTARTED, *[COLLECTS] * 3, STOPPED], [AGAIN]),
        ([*[UNKNOWN] * 20, STOPPED], []),
    ],
    ids=[
        "stopped", "ended", "a slow restart", "busy", "silent", "a slow drain", "stopped while silent", "restarted",
        "collects", "collects after a while", "collects now and then", "collects before and after",
        "no counters",
    ],
)  # fmt: skip
def test_what_has_ended_or_fallen_silent_is_started_again(
    config: Path, monkeypatch: pytest.MonkeyPatch, opened: ExitStack, states: list[str], said: list[str]
) -> None:
    server, heard = watched(config, states, monkeypatch, opened)
    assert heard == said
    assert server.starts == said.count(STARTED)


def test_what_does_not_run_is_started_whatever_was_stopped_before(
    config: Path, monkeypatch: pytest.MonkeyPatch, opened: ExitStack
) -> None:
    prepare_logs(config)
    mark_stopped(config)
    assert watched(config, [ANSWERS, STOPPED], monkeypatch, opened, runs=False)[1] == [STARTED]


def test_a_stop_during_the_start_of_a_watcher_ends_it(
    config: Path, monkeypatch: pytest.MonkeyPatch, opened: ExitStack
) -> None:
    monkeypatch.setattr(TimedServer, "is_stopped_meanwhile", True)
    assert watched(config, [ENDED], monkeypatch, opened)[1] == [HAS_ENDED]


def test_a_second_watcher_of_a_server_is_told_of_the_first(
    config: Path, monkeypatch: pytest.MonkeyPatch, opened: ExitStack
) -> None:
    opened.enter_context(FileLock(prepare_logs(config) / f"{config.name}.watch.lock"))
    with pytest.raises(ServerError, match="another command watches the server"):
        watched(config, [STOPPED], monkeypatch, opened)


def test_a_server_with_another_state_folder_is_left_alone(
    config: Path, monkeypatch: pytest.MonkeyPatch, opened: ExitStack
) -> None:
    config.write_text(config.read_text().replace("disable_token_authorization=true", ""))
    with pytest.raises(ServerError, match=f"state folder /, and this command has {config.parent}; give both"):
        watched(config, [SILENT] * 9, monkeypatch, opened)
