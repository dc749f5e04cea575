"""A server and its front as the two children of one process, where a platform takes no second container."""

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from mar_tools.command_line import ROOT, Announce
from mar_tools.front.clouds import Places
from mar_tools.serving.foreground import ASKING
from mar_tools.waiting import SignalFlag

# SageMaker kills after 30 s. The front answers what it has, then the server ends.
FRONT_S, DRAIN_S, SERVER_S, CUT_S = 8.0, 8.0, 14.0, 3.0
POLL_S = 0.2
SET_PARENT_DEATH_SIGNAL = 1  # <linux/prctl.h>


def run_together(places: Places, say: Announce) -> int:
    """Serve until a signal asks for the end, or one of the two ends.

    Return the exit status: 0 where the end was asked for, and all was answered.
    """
    asked = SignalFlag()
    for number in ASKING:
        signal.signal(number, lambda *_: asked.set())
    server = _start("serve_models.py", "--drain-timeout-s", str(DRAIN_S), config=places.config)
    try:
        front = _start("serve_front.py", "--folder", places.front, "--settings", places.settings, config=places.config)
        try:
            while not asked.wait(POLL_S) and server.poll() is None and front.poll() is None:
                pass
            say(_reason(server, front))
        finally:
            front_status = _end(front, signal.SIGQUIT, FRONT_S)
    finally:
        server_status = _end(server, signal.SIGTERM, SERVER_S)
    if asked.is_set() and server_status in (0, -signal.SIGTERM):  # the latter before it hears signals
        return 0
    return next((status for status in (server_status, front_status) if status > 0), 1)


def _start(script: str, *options: str | Path, config: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, ROOT / "scripts" / script, "run", "--config", config, *options]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for this process
        preexec_fn=_end_with_parent,
    )


def _end_with_parent() -> None:
    """Ask for SIGTERM when the parent is killed: what stayed would keep the port. On Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)


def _reason(server: "subprocess.Popen[bytes]", front: "subprocess.Popen[bytes]") -> str:
    for name, process in (("server", server), ("front", front)):
        if process.poll() is not None:
            return f"the {name} has ended, with exit status {process.returncode}"
    return "asked to stop"


def _end(process: "subprocess.Popen[bytes]", number: signal.Signals, timeout_s: float) -> int:
    """Return its exit status. What does not end in time is ended at once, by SIGTERM, and else killed."""
    for each, most_s in ((number, timeout_s), (signal.SIGTERM, CUT_S)):
        if process.poll() is None:
            process.send_signal(each)
        with suppress(subprocess.TimeoutExpired):
            return process.wait(most_s)
    os.killpg(process.pid, signal.SIGKILL)
    return process.wait()
