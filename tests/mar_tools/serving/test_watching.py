"""A frontend that has ended or fallen silent is started again, and one that was stopped is left alone."""

from collections.abc import Iterator

import pytest

from mar_tools.serving.watching import watch

ANSWERS, SILENT, ENDED, STOPPED = "answers", "silent", "ended", "stopped"


class TimedServer:
    """A server that is in the next state of a list each time that the watcher has waited."""

    def __init__(self, states: list[str]) -> None:
        self._states: Iterator[str] = iter(states)
        self.state = next(self._states)
        self.starts = 0
        self.now_s = 0.0

    def wait(self, seconds: float) -> None:
        self.state = next(self._states)
        self.now_s += seconds

    def clock(self) -> float:
        return self.now_s

    def process(self) -> object | None:
        return None if self.state in (ENDED, STOPPED) else object()

    def answers(self, timeout_s: float) -> bool:
        self.now_s += timeout_s if self.state == SILENT else 0
        return self.state == ANSWERS

    def start(self, timeout_s: float, announce: object, warn: object) -> list[object]:
        self.starts += 1
        return []

    def stop(self) -> bool:
        return self.state != STOPPED


@pytest.mark.parametrize(
    ("states", "starts", "said"),
    [
        ([ANSWERS, ANSWERS, STOPPED, STOPPED], 0, []),
        ([STOPPED, ANSWERS, STOPPED, STOPPED], 1, ["started"]),
        ([ANSWERS, ENDED, ENDED, ANSWERS, STOPPED, STOPPED], 1, ["the frontend has ended", "started"]),
        ([ANSWERS, ENDED, ANSWERS, STOPPED, STOPPED], 0, []),
        ([ANSWERS, SILENT, ANSWERS, STOPPED, STOPPED], 0, []),
        ([ANSWERS, SILENT, SILENT, ANSWERS, STOPPED, STOPPED], 1, ["the frontend was silent for 30 s", "started"]),
    ],
    ids=["stopped", "not running", "ended", "another command starts it", "busy", "silent"],
)
def test_what_has_ended_or_fallen_silent_is_started_again(states: list[str], starts: int, said: list[str]) -> None:
    server = TimedServer(states)
    heard: list[str] = []
    watch(server, 1, heard.append, server.wait, server.clock)  # type: ignore[arg-type]
    assert (server.starts, heard) == (starts, said)
