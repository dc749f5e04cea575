"""A frontend that has ended, or that no longer answers, is replaced."""

import time
from collections.abc import Callable

from mar_tools.command_line import Announce
from mar_tools.serving.health import Health
from mar_tools.serving.server import Server, StartingError
from mar_tools.serving.start_record import stop_mark
from mar_tools.serving.torchserve_api import ServerError

SILENT_S = 30.0
POLL_S = 5.0
ANSWER_S = 10.0  # a frontend that is only busy answers its management API sooner


def watch(
    server: Server,
    timeout_s: float,
    announce: Announce,
    wait: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Start the server where it does not run, and again whenever its frontend ends or is silent for SILENT_S.

    Returns when another command has marked the server as stopped. Raises ServerError or ConfigError where it cannot
    start. Silence does not count while another command starts it.
    """
    stop_mark(server.config).unlink(missing_ok=True)
    if server.process() is None:
        _tell(server.start(timeout_s, lambda step: None, announce), announce)
    process, answered = server.process(), clock()
    while not stop_mark(server.config).exists():
        wait(POLL_S)
        now = server.process()
        if now is not None and now != process:  # restarted, with the settings of now: those before may name other ports
            server, process, answered = Server(server.config), now, clock()
        if now is not None and server.answers(ANSWER_S):
            answered = clock()
        silent_s = clock() - answered
        if now is not None and silent_s < SILENT_S:
            continue
        reason = "the frontend has ended" if now is None else f"the frontend was silent for {silent_s:.0f} s"
        try:
            _tell(server.replace(now, reason, timeout_s, announce), announce)
        except StartingError:
            answered = clock()
        except ServerError:
            if not stop_mark(server.config).exists():
                raise


def _tell(found: list[Health], announce: Announce) -> None:
    if found:
        announce("started" + "".join(f"; {model}" for model in found if not model.healthy))
