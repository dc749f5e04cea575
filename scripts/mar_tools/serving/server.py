"""Start, watch and stop one TorchServe, with the right Java, its own temporary folder, and nothing left behind.

What runs is known by its configuration and the record beside it, from any shell and in any environment.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from mar_tools.command_line import Announce
from mar_tools.locking import locked
from mar_tools.serving.address import read_address
from mar_tools.serving.archive_choice import Choice, choose_archives, file_name, find_unnamed, list_entries
from mar_tools.serving.health import Health, check_server
from mar_tools.serving.launching import launch
from mar_tools.serving.logs import ServerLogs
from mar_tools.serving.memory_bounds import read_bounds
from mar_tools.serving.metrics_exporter import find_silence, start_exporter
from mar_tools.serving.model_status import ModelStatus, list_versions, read_status
from mar_tools.serving.ports import listening_places
from mar_tools.serving.processes import (
    DRAIN_NAME,
    POLL_S,
    PREFIX,
    end_processes,
    find_exporters,
    find_frontend,
    find_temporary,
    find_workers,
    remove_temporary,
    wait_until_ended,
)
from mar_tools.serving.start_checks import check_limits, check_ports, choose_temporary_place, prepare_logs
from mar_tools.serving.start_record import StartRecord, read_start_record, stop_mark
from mar_tools.serving.torchserve_api import MANAGE_TIMEOUT_S, ServerError, TorchServeClient
from mar_tools.waiting import wait_until
from vision_serving.worker.server_settings import read_properties, read_text, state_folder

KEY_FILE = "key_file.json"  # that TorchServe writes where it runs
STOP_TIMEOUT_S = 20.0
FIRST_ANSWER_S = 60.0  # of a model whose workers are ready


class StartingError(ServerError):
    """Another command is starting the server."""


class Server:
    """The TorchServe of one `config.properties`. to_stdout: it logs to the standard output of this process too."""

    def __init__(self, config: Path, to_stdout: bool = False) -> None:
        self.config = config.resolve()
        self._to_stdout = to_stdout
        self.folder = self.config.parent
        address = read_address(self.config)
        self._tokens_on = address.key_file is not None
        self._state = state_folder(self.config)
        self._key_file = self._state / KEY_FILE
        self._values = read_properties(read_text(self.config))
        self.client = TorchServeClient(address)
        self._logs = ServerLogs(self._state / "logs")

    @property
    def temporary(self) -> Path:
        """Return the server's own folder. Raises ServerError where no start has made one."""
        found = find_temporary(self.config)
        if found is None:
            raise ServerError(f"no server of {self.config} was started by serve_models.py, which this needs")
        return found

    @property
    def drain_file(self) -> Path:
        """Return the file that exists while the server drains."""
        return self.temporary / DRAIN_NAME

    def process(self) -> psutil.Process | None:
        """Return the running frontend, None when there is none."""
        return find_frontend(self.config)

    def require_its_state(self) -> None:
        """Raises ServerError where the frontend has its tokens in another state folder than this command reads."""
        process = self.process()
        if process is None or not self._tokens_on:
            return
        with suppress(psutil.Error):  # it has ended, or is another user's
            if (there := Path(process.cwd())) != self._state.resolve():
                found = f"the server of {self.config.name} runs with the state folder {there}, and this command has"
                raise ServerError(f"{found} {self._state}; give both the same --state")

    def start(self, timeout_s: float, announce: Announce, warn: Announce = lambda text: None) -> list[Health]:
        """Start and wait until every model has given its golden prediction, or said why it cannot load.

        What cannot be served is left out and told to `warn` as soon as it is known; the others are served. Raises
        ServerError or ConfigError when there is nothing to serve, and no server is left running then.
        """
        with self._starting():
            if self.process() is not None:
                raise ServerError(f"the server of {self.config.name} is already running; use restart, or stop it first")
            self.stop()  # what a frontend that was killed has left
            stop_mark(self.config).unlink(missing_ok=True)
            return self._start(*self._prepare(), timeout_s, announce, warn)

    def restart(self, stop: Callable[[], object], timeout_s: float, announce: Announce, warn: Announce) -> list[Health]:
        """Stop and start it as `start` does. What cannot be started again is not stopped."""
        with self._starting():
            prepared = self._prepare()
            stop()
            stop_mark(self.config).unlink(missing_ok=True)
            return self._start(*prepared, timeout_s, announce, warn)

    def replace(self, process: psutil.Process | None, reason: str, timeout_s: float, warn: Announce) -> list[Health]:
        """Stop and start it for this reason, unless it was stopped or restarted meanwhile: `process` runs no more then.

        Raises StartingError while another command starts it, and like `start`.
        """
        with self._starting():
            if self.process() != process or stop_mark(self.config).exists():
                return []
            warn(reason)
            self.stop()
            return self._start(*self._prepare(), timeout_s, lambda step: None, warn)

    @contextmanager
    def _starting(self) -> Iterator[None]:
        busy = StartingError(f"the server of {self.config.name} is being started by another command")
        with locked(prepare_logs(self.config) / f"{self.config.name}.lock", busy):
            yield

    def _start(self, choice: Choice, place: Path, timeout_s: float, announce: Announce, warn: Announce) -> list[Health]:
        for reason in (*dict.fromkeys(choice.left_out.values()), *find_unnamed(self.config, choice.served.values())):
            warn(reason)
        deadline = time.monotonic() + timeout_s
        try:
            self._launch(choice, place)
            found = self._wait_until_ready(choice, deadline, announce, warn)
            if (silence := find_silence(self.config)) is not None:
                warn(silence)
            choice.require_unchanged()
            if stop_mark(self.config).exists():
                raise ServerError("another command stopped it during its start")
            return found
        except BaseException:  # also when the user interrupts: half a server is of no use
            self._end()
            raise

    def _prepare(self) -> tuple[Choice, Path]:
        """Return what a start would serve, and the place of its temporary folder. Raises ServerError or ConfigError."""
        check_limits(os.environ)
        read_bounds(self._values)
        choice = choose_archives(self.config)
        archives = [self.model_store() / file_name(entry) for entry in choice.served]
        return choice, choose_temporary_place(self.config, archives)

    def stop(self) -> bool:
        """Stop it, or what a killed one left. False: nothing was there. Raises ServerError when a port is not free."""
        ended = self._end()
        check_ports(self._values, self.config.name)
        return ended

    def _end(self) -> bool:
        process, temporary = self.process(), find_temporary(self.config)
        if process is None and temporary is None:
            return False  # a key file here may belong to a server of another user
        found = process is not None
        if process is not None:
            with suppress(psutil.NoSuchProcess):  # it may end by itself
                family, folder = [process, *process.children(recursive=True)], Path(process.cwd())
                process.terminate()
                end_processes(wait_until_ended(family, STOP_TIMEOUT_S))
                (folder / KEY_FILE).unlink(missing_ok=True)  # also where `vision_state` was another at its start
        if temporary is not None:
            workers = find_workers(self.config, temporary) + find_exporters(self.config, temporary)
            end_processes(workers)
            found = remove_temporary(self.config, temporary) or bool(workers) or found
        self._key_file.unlink(missing_ok=True)
        return found

    def status(self) -> list[ModelStatus]:
        """Raises ServerError when the server does not answer."""
        properties = read_text(self.config)
        return [read_status(model, entry, properties) for model, entry in list_versions(self.client)]

    def archives(self) -> list[Path]:
        """Return those that `load_models` names: all of the store, or a list."""
        properties, store = read_text(self.config), self.model_store()
        return [store / file_name(entry) for entry in list_entries(properties, store)]

    def model_store(self) -> Path:
        return self.folder / self._values.get("model_store", "model_store")

    def _launch(self, choice: Choice, place: Path) -> None:
        temporary = tempfile.mkdtemp(prefix=PREFIX, dir=place)  # a name that nobody can have taken before
        record = StartRecord(temporary=temporary, left_out=choice.left_out, log_sizes=self._logs.measure())
        record.write(self.config)
        self._logs = ServerLogs(self._state / "logs", record.log_sizes)
        self._key_file.unlink(missing_ok=True)
        launch(self.config, Path(temporary), list(choice.served), self._to_stdout)
        start_exporter(self.config, Path(temporary))

    def _wait_until_ready(self, choice: Choice, deadline: float, announce: Announce, warn: Announce) -> list[Health]:
        announce("waiting for the frontend")
        self._wait_for_frontend(deadline)
        self._note_refused(choice, warn)
        failed = self._wait_for_workers(deadline, announce, warn)
        if failed and not any(entry.ready for entry in self.status()):
            raise ServerError("; ".join(failed))
        announce("golden predictions")
        found = check_server(self.config, time.monotonic() + FIRST_ANSWER_S)
        if not any(model.healthy for model in found) and any(model.status for model in found):
            raise ServerError("; ".join(map(str, found)))
        return found

    def _wait_for_frontend(self, deadline: float) -> None:
        came_up = wait_until(lambda: self.answers() or self.process() is None, deadline - time.monotonic(), POLL_S)
        if self.process() is None:
            raise ServerError(f"TorchServe ended during start{self._logs.last_failure()}")
        if not came_up:
            raise ServerError(f"the frontend did not come up{self._logs.last_failure()}")

    def answers(self, timeout_s: float = MANAGE_TIMEOUT_S) -> bool:
        """Return whether the frontend answers its management API."""
        if self._tokens_on and not self._key_file.is_file():
            return False
        try:
            self.client.with_deadline(time.monotonic() + timeout_s).list_models()
        except ServerError:
            return False
        return True

    def _note_refused(self, choice: Choice, warn: Announce) -> None:
        """Add to the record which archives TorchServe itself left out."""
        served = {(entry.model, entry.version) for entry in self.status()}
        refused = {}
        for entry, (model, version) in choice.served.items():
            name, _, archive = entry.rpartition("=")
            if (name or model, version) not in served:
                refused[archive] = f"TorchServe refused {archive}: {self._logs.refusal(archive) or 'see logs/'}"
                warn(refused[archive])
        if refused:
            read_start_record(self.config).with_left_out(refused).write(self.config)

    def _wait_for_workers(self, deadline: float, announce: Announce, warn: Announce) -> list[str]:
        """Wait until each model is ready, has said why it cannot load, or the time is up. Return the reasons."""
        failed: dict[tuple[str, str], str] = {}
        while True:
            statuses = self.status()
            waiting = [entry for entry in statuses if not entry.ready and entry.identity not in failed]
            for entry in waiting:
                reason = self._logs.load_failure(*entry.identity)
                if reason is not None and entry.workers_ready == 0:
                    failed[entry.identity] = f"model {entry.model} cannot load: {reason}"
                    # TorchServe would start the worker again and again, on the cores of the others.
                    self.client.scale(entry.model, entry.version, 0)
                elif time.monotonic() > deadline:
                    ready = f"{entry.workers_ready} of {entry.workers} workers"
                    failed[entry.identity] = f"model {entry.model}: {ready} ready in time{self._logs.last_failure()}"
                if entry.identity in failed and len(statuses) > 1:  # of a single model the error says it
                    warn(failed[entry.identity])
            loading = [entry for entry in waiting if entry.identity not in failed]
            if not loading:
                return list(failed.values())
            if self.process() is None:
                raise ServerError(f"TorchServe ended during start{self._logs.last_failure()}")
            names = ", ".join(f"{entry.model} {entry.workers_ready}/{entry.workers}" for entry in loading)
            announce(f"waiting for workers: {names}")
            time.sleep(POLL_S)

    def ports(self) -> dict[str, int]:
        """Return the five listening ports by their key."""
        return {key: port for key, (_, port) in listening_places(self._values).items()}
