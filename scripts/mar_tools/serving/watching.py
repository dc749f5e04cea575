"""A frontend that has ended, or that no longer answers, is replaced."""

import time
from collections.abc import Callable

from mar_tools.command_line import Announce
from mar_tools.serving.server import Server

SILENT_S = 30.0  # longer than any answer of the management API to a frontend that is only busy
POLL_S = 5.0


def watch(server: Server, timeout_s: float, announce: Announce, wait: Callable[[float], None] = time.sleep) -> None:
    """Start the server where it does not run, and again whenever its frontend ends or is silent for SILENT_S.

    Returns when another command has stopped the server. Raises ServerError or ConfigError where it cannot start.
    """
    if server.process() is None:
        _start(server, timeout_s, announce)
    silent_s = 0.0
    while True:
        wait(POLL_S)
        silent_s = 0.0 if server.answers() else silent_s + POLL_S
        has_ended = server.process() is None and silent_s >= 2 * POLL_S  # twice: another command may just start it
        if not has_ended and silent_s < SILENT_S:
            continue
        if not server.stop():
            return
        announce("the frontend has ended" if has_ended else f"the frontend was silent for {silent_s:.0f} s")
        _start(server, timeout_s, announce)
        silent_s = 0.0


def _start(server: Server, timeout_s: float, announce: Announce) -> None:
    bad = [model for model in server.start(timeout_s, lambda step: None, announce) if not model.healthy]
    announce("started" + "".join(f"; {model}" for model in bad))
