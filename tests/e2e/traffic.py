"""Requests one after the other, from threads, and what became of each."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import requests

PAUSE_S = 0.02  # light traffic: the tests' machine has two cores


@dataclass
class Traffic:
    """outcomes: the status and body of each answer in order, or the name of what was raised and its text."""

    outcomes: list[tuple[int | str, str]] = field(default_factory=list)

    def counts(self) -> Counter[int | str]:
        return Counter(outcome for outcome, _ in self.outcomes)

    def failures(self) -> list[tuple[int | str, str]]:
        return [outcome for outcome in self.outcomes if outcome[0] != 200]


@contextmanager
def keep_asking(ask: Callable[[], requests.Response], threads: int = 2) -> Iterator[Traffic]:
    """Until the block ends. Each answer is waited for."""
    traffic, ended = Traffic(), threading.Event()

    def repeat() -> None:
        while not ended.is_set():
            traffic.outcomes.append(try_once(ask))
            time.sleep(PAUSE_S)

    askers = [threading.Thread(target=repeat) for _ in range(threads)]
    for asker in askers:
        asker.start()
    try:
        yield traffic
    finally:
        ended.set()
        for asker in askers:
            asker.join()


def try_once(ask: Callable[[], requests.Response]) -> tuple[int | str, str]:
    try:
        response = ask()
    except requests.RequestException as error:
        return type(error).__name__, str(error)
    return response.status_code, response.text
