"""Waiting for what another process or thread does."""

import time
from collections.abc import Callable
from typing import TypeVar

POLL_S = 0.05

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout_s: float, poll_s: float = POLL_S) -> T:
    """Ask until the answer is true or the time is up, at least once. Return the last answer."""
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()) and time.monotonic() < deadline:
        time.sleep(poll_s)
    return answer
