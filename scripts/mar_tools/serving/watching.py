"""A frontend that has ended, or that no longer answers, is replaced."""

import time
from collections.abc import Callable

from mar_tools.command_line import Announce
from mar_tools.serving.server import Server

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

    Returns when another command has stopped the server. Raises ServerError or ConfigError where it cannot start.
    """
    if server.process() is None:
        _start(server, timeout_s, announce)
    answered = clock()
    while True:
        wait(POLL_S)
        if server.answers(ANSWER_S):
            answered = clock()
        silent_s = clock() - answered
        has_ended = server.process() is None and silent_s >= 2 * POLL_S  # twice: another command may just start it
        if not has_ended and silent_s < SILENT_S:
            continue
        if not server.stop():
            return
        announce("the frontend has ended" if has_ended else f"the frontend was silent for {silent_s:.0f} s")
        _start(server, timeout_s, announce)
        answered = clock()


def _start(server: Server, timeout_s: float, announce: Announce) -> None:
    bad = [model for model in server.start(timeout_s, lambda step: None, announce) if not model.healthy]
    announce("started" + "".join(f"; {model}" for model in bad))
