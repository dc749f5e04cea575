"""Waiting for what another process or thread does, or a signal asks."""

import queue
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

POLL_S = 0.05

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout_s: float, poll_s: float = POLL_S) -> T:
    """Ask until the answer is true or the time is up, at least once. Return the last answer."""
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()) and time.monotonic() < deadline:
        time.sleep(poll_s)
    return answer


class SignalFlag:
    """Set by a handler of signals, wherever it interrupts the thread that waits.

    A handler that sets a `threading.Event` may wait for a lock that the interrupted thread holds, and so for ever.
    """

    def __init__(self) -> None:
        self._set = False
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()  # whose `put` may interrupt its `get`

    def set(self) -> None:
        self._set = True
        self._wake.put(None)

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout_s: float) -> bool:
        """Return whether it is set, at the latest after so many seconds."""
        if not self._set:
            with suppress(queue.Empty):
                self._wake.get(timeout=timeout_s)
        return self._set
