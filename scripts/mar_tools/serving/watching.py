"""A frontend that has ended, no longer answers, or does little but collect memory, is replaced."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from mar_tools.command_line import Announce
from mar_tools.locking import locked
from mar_tools.serving.health import Health
from mar_tools.serving.java_counters import collecting_s
from mar_tools.serving.metrics_exporter import mend_exporter
from mar_tools.serving.server import Server, StartingError
from mar_tools.serving.start_checks import prepare_logs
from mar_tools.serving.start_record import stop_mark
from mar_tools.serving.torchserve_api import ServerError

SILENT_S = 30.0
POLL_S = 5.0
ANSWER_S = 10.0  # a frontend that is only busy answers its management API sooner
# Of SILENT_S. A frontend whose heap is full may answer between two collections, and never fail for want of memory.
MOST_COLLECTING = 0.5

Clock = Callable[[], float]


class Signs:
    """What a frontend has shown since it was met: when it answered last, and how long it had collected memory when."""

    def __init__(self, process: psutil.Process | None, clock: Clock) -> None:
        self.process, self._clock = process, clock
        self._collected: deque[tuple[float, float]] = deque()
        self.forget()

    def forget(self) -> None:
        """Begin anew: what was seen until now says nothing."""
        self._answered = self._clock()
        self._collected.clear()

    def find_fault(self, server: Server) -> str | None:
        """Return why it must be replaced, None while it need not."""
        if server.answers(ANSWER_S):
            self._answered = self._clock()
        now = self._clock()
        if now - self._answered >= SILENT_S:
            return f"was silent for {now - self._answered:.0f} s"
        collected_s = collecting_s(self.process) if self.process is not None else None
        if collected_s is None:
            return None
        self._collected.append((now, collected_s))
        while len(self._collected) > 1 and now - self._collected[1][0] >= SILENT_S:
            self._collected.popleft()
        passed_s, spent_s = now - self._collected[0][0], collected_s - self._collected[0][1]
        if spent_s <= MOST_COLLECTING * max(passed_s, SILENT_S):
            return None
        return f"collected memory for {spent_s:.0f} of {passed_s:.0f} s"


@contextmanager
def being_watched(config: Path) -> Iterator[None]:
    """Raises ServerError while another process watches this server."""
    busy = ServerError(f"another command watches the server of {config.name} already; end that one first")
    with locked(prepare_logs(config) / f"{config.name}.watch.lock", busy):
        yield


def watch(
    server: Server,
    timeout_s: float,
    announce: Announce,
    wait: Callable[[float], None] = time.sleep,
    clock: Clock = time.monotonic,
) -> None:
    """Start the server where it does not run, and again whenever its frontend ends or shows a fault.

    Returns when another command has marked the server as stopped. Raises ServerError or ConfigError where it cannot
    start, where another process watches it, and where it runs with another state folder. Silence does not count while
    another command starts it.
    """
    with being_watched(server.config):
        server.require_its_state()
        stop_mark(server.config).unlink(missing_ok=True)
        if server.process() is None:
            _tell(server, server.start(timeout_s, lambda step: None, announce), announce)
        signs = Signs(server.process(), clock)
        announce(f"watching {_name(signs.process)}")
        told: str | None = None  # of the exporter of metrics: a port that stays taken is one line
        while not stop_mark(server.config).exists():
            wait(POLL_S)
            now = server.process()
            if now is not None and now != signs.process:  # with the settings of now: those before may name other ports
                server, signs = Server(server.config), Signs(now, clock)
                server.require_its_state()
                announce(f"watching {_name(now)}")
            fault = "has ended" if now is None else signs.find_fault(server)
            if fault is not None:
                _replace(server, signs, now, f"{_name(signs.process)} {fault}", timeout_s, announce)
                continue
            mended = mend_exporter(server.config)
            if mended is not None and mended != told:
                announce(mended)
            told = mended


def _replace(
    server: Server, signs: Signs, process: psutil.Process | None, reason: str, timeout_s: float, announce: Announce
) -> None:
    try:
        _tell(server, server.replace(process, reason, timeout_s, announce), announce)
    except StartingError:
        signs.forget()
    except ServerError:
        if not stop_mark(server.config).exists():
            raise


def _tell(server: Server, found: list[Health], announce: Announce) -> None:
    if found:
        bad = "".join(f"; {model}" for model in found if not model.healthy)
        announce(f"started {_name(server.process())}{bad}")


def _name(process: psutil.Process | None) -> str:
    return "the frontend" if process is None else f"frontend {process.pid}"
