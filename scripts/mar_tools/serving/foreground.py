"""A server as the main process of a container or a service: serve, drain when asked to, and say why it ended.

Whoever started this process starts it again: a frontend that has ended, or shows a fault, is not replaced here.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import FrameType

import orjson
import psutil

from mar_tools.command_line import Announce
from mar_tools.locking import locked
from mar_tools.serving.graceful_stop import stop_drained
from mar_tools.serving.logs import log_form
from mar_tools.serving.metrics_exporter import mend_exporter
from mar_tools.serving.processes import runs
from mar_tools.serving.server import Server
from mar_tools.serving.service_units import tell_manager
from mar_tools.serving.start_checks import prepare_logs
from mar_tools.serving.start_record import stop_mark
from mar_tools.serving.torchserve_api import ServerError
from mar_tools.serving.watching import POLL_S, Signs, being_watched
from mar_tools.waiting import SignalFlag
from vision_serving.worker.server_settings import read_properties, read_text

STOPPED, ENDED, CUT = 0, 3, 4  # exit statuses; 1 is that of a start that failed, 2 of a wrong command line
ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)  # the last as nginx has it
LOGGER = "serve_models"
END_POLL_S = 0.5
SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


class Asked(BaseException):
    """A signal asks for the end of what is under way."""


class StopSignals:
    """What asks this process to stop: noted, and raised where something can be cut short."""

    def __init__(self) -> None:
        self.asked = SignalFlag()
        self._cut: Callable[[], object] | None = None
        for number in ASKING:
            signal.signal(number, self._hear)

    @contextmanager
    def cutting(self, cut: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Let the next signal call `cut` and raise Asked. Those after it are noted alone."""
        self._cut = cut
        try:
            yield
        finally:
            self._cut = None

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.asked.set()
        cut, self._cut = self._cut, None
        if cut is not None:
            cut()
            raise Asked


def run_in_foreground(config: Path, timeout_s: float, drain_timeout_s: float) -> int:
    """Serve until a signal asks for the end, or the frontend ends or shows a fault. Return the exit status.

    Raises ServerError or ConfigError where it cannot start, and where another process watches it.
    """
    server, say, signals = Server(config, to_stdout=True), own_log(config), StopSignals()
    adopt_orphans()
    with being_watched(server.config), running_lock(server):
        try:
            with signals.cutting():
                found = server.start(timeout_s, lambda step: None, say)
                for model in found:
                    say(str(model))
                if not found:
                    say(f"serves no model: no archive in {server.model_store()}; put one there, or set `model_store`")
        except Asked:
            say("asked to stop during the start")
        process = server.process()
        status = STOPPED if process is None else _serve_and_stop(server, process, drain_timeout_s, signals, say)
    say(f"ends with exit status {status}")
    return status


@contextmanager
def running_lock(server: Server) -> Iterator[None]:
    """Raises ServerError while a process runs this server in the foreground: it would take a restart for an end."""
    advice = "end that one by SIGTERM, and start it again as it was started"
    busy = ServerError(f"the server of {server.config.name} is run in the foreground; {advice}")
    with locked(prepare_logs(server.config) / f"{server.config.name}.run.lock", busy):
        yield


def _serve_and_stop(
    server: Server, process: psutil.Process, drain_timeout_s: float, signals: StopSignals, say: Announce
) -> int:
    try:
        status = None if signals.asked.is_set() else _serve(server, process, signals.asked, say)
        if status is None:
            status = _drain(server, process, drain_timeout_s, signals, say)
        elif status == ENDED:
            server.stop()
    except BaseException:
        server.stop()
        raise
    reap()
    return status


def _serve(server: Server, process: psutil.Process, asked: SignalFlag, say: Announce) -> int | None:
    """Return the exit status where it ends by itself, None when it is asked to stop."""
    signs, told, looked = Signs(process, time.monotonic), None, time.monotonic()
    say(f"serving by frontend {process.pid}")
    tell_manager("READY=1")
    while not asked.wait(END_POLL_S):
        ended = reap()
        if not runs(process):
            if stop_mark(server.config).exists():
                say("stopped by another command")
                return STOPPED
            say(f"frontend {process.pid} has ended{ended.get(process.pid, '')}")
            return ENDED
        if time.monotonic() - looked < POLL_S:
            continue
        fault = signs.find_fault(server)
        if fault is not None:
            say(f"frontend {process.pid} {fault}")
            return ENDED
        mended = mend_exporter(server.config)
        if mended is not None and mended != told:
            say(mended)
        told, looked = mended, time.monotonic()
        tell_manager("WATCHDOG=1")
    return None


def _drain(server: Server, process: psutil.Process, timeout_s: float, signals: StopSignals, say: Announce) -> int:
    """Answer what was asked, refuse the rest, and stop: at once where a second signal comes."""

    def end_frontend() -> None:
        with suppress(psutil.NoSuchProcess):
            process.terminate()

    say("asked to stop")
    tell_manager("STOPPING=1")
    try:
        with signals.cutting(end_frontend):
            stop_drained(server, timeout_s, say)
    except Asked:
        say("asked to stop a second time: stopped at once")
        return CUT
    except ServerError as error:
        say(str(error))
        return CUT
    return STOPPED


def adopt_orphans() -> None:
    """Become the parent of what a child leaves behind, as pid 1 is, and so learn how the frontend ended. On Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap() -> dict[int, str]:
    """Collect the children that have ended. Return how, by their number, as the end of a message."""
    ended = {}
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            code = os.waitstatus_to_exitcode(found[1])
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
            ended[found[0]] = f": {how}"
    return ended


def own_log(config: Path, logger: str = LOGGER) -> Announce:
    """Return what prints a line of this process between those of TorchServe, in their form."""
    as_json = log_form(read_properties(read_text(config)), "json") == "json"

    def say(text: str) -> None:
        time_now = datetime.now().astimezone().isoformat(timespec="milliseconds")
        if as_json:
            entry = {"time": time_now, "level": "INFO", "thread": "main", "logger": logger, "message": text}
            print(orjson.dumps({**entry, "exception": ""}).decode(), flush=True)
        else:
            print(f"{time_now} [INFO ] main {logger} - {text}", flush=True)

    return say
