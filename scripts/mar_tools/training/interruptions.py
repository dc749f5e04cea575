"""Ctrl+C and the signals that end a process: one line that says how to go on, and the status that a shell expects."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from mar_tools.terminal import print_line

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def told_how_to_go_on(describe: Callable[[], str]) -> Iterator[None]:
    """End with status 128 + the signal's number, after the line that `describe` gives then.

    Lightning makes status 1 of a KeyboardInterrupt, and leaves Ctrl+C without effect from then on.
    """
    before = {number: signal.signal(number, _end) for number in ENDING}
    try:
        yield
    except SystemExit as ended:
        if ended.code in {128 + number for number in ENDING}:
            print_line(describe())
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(received: int, _: FrameType | None) -> None:
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)  # once is enough, and what is being written shall be whole
    sys.exit(128 + received)
