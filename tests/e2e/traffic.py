"""Requests one after the other, from threads, and what became of each."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests

PAUSE_S = 0.02  # light traffic: the tests' machine has two cores


@dataclass
class Traffic:
    """outcomes: the status and body of each answer in order, or the name of what was raised and its text."""

    outcomes: list[tuple[int | str, str]]

    def failures(self) -> list[tuple[int | str, str]]:
        return [outcome for outcome in self.outcomes if outcome[0] != 200]


@dataclass
class Comparison:
    """outcomes: what each asking gave, or the exception that it raised."""

    expected: Any
    outcomes: list[Any]

    @property
    def right(self) -> int:
        return len(self.outcomes) - len(self.wrong)

    @property
    def wrong(self) -> list[Any]:
        return [outcome for outcome in list(self.outcomes) if outcome != self.expected]


@contextmanager
def keep_asking(ask: Callable[[], requests.Response]) -> Iterator[Traffic]:
    """Until the block ends. Each answer is waited for."""
    with _repeat(lambda: try_once(ask), count=2) as outcomes:
        yield Traffic(outcomes)


@contextmanager
def keep_comparing(ask: Callable[[], Any], expected: Any) -> Iterator[Comparison]:
    """As `keep_asking`. Whatever goes wrong is kept, and shown by the test."""

    def try_asking() -> Any:
        try:
            return ask()
        except Exception as error:
            return error

    with _repeat(try_asking, count=4) as outcomes:
        yield Comparison(expected, outcomes)


@contextmanager
def _repeat(step: Callable[[], Any], count: int) -> Iterator[list[Any]]:
    """What `step` gave each time, until the block ends, in `count` threads."""
    outcomes: list[Any] = []
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(PAUSE_S):
            outcomes.append(step())

    askers = [threading.Thread(target=run) for _ in range(count)]
    for asker in askers:
        asker.start()
    try:
        yield outcomes
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
