"""Readers of the metrics: many at once cost one reading or two, and who only holds a connection keeps nobody out."""

import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mar_tools.monitoring import exporter
from mar_tools.monitoring.exporter import ReaderServer, Reading, _make_handler
from mar_tools.serving.metrics_exporter import HEALTH
from mar_tools.waiting import wait_until


class CountingLock:
    """A lock that says how many wait for it."""

    def __init__(self) -> None:
        self._lock, self.asked = threading.Lock(), 0

    def __enter__(self) -> None:
        self.asked += 1
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_all_who_ask_during_a_reading_share_the_next_one() -> None:
    begins, release, found = threading.Event(), threading.Event(), list[int]()

    def read() -> bytes:
        found.append(len(found) + 1)
        begins.set()
        assert release.wait(60)
        return b"%d" % len(found)

    reading, answers = Reading(read), list[bytes]()
    reading._lock = lock = CountingLock()  # type: ignore[assignment]
    askers = [threading.Thread(target=lambda: answers.append(reading.get())) for _ in range(21)]
    askers[0].start()
    assert begins.wait(60)
    for asker in askers[1:]:
        asker.start()
    assert wait_until(lambda: lock.asked == 21, 60)
    release.set()
    for asker in askers:
        asker.join()
    assert sorted(answers) == [b"1"] + [b"2"] * 20
    assert reading.get() == b"3", "none is older than the question"


@contextmanager
def serving() -> Iterator[ReaderServer]:
    with ReaderServer(("127.0.0.1", 0), _make_handler(lambda: b"vision_up 1\n" * 100_000)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_readers_that_hold_connections_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "MOST_READERS", 4)
    with serving() as server:
        port = server.server_port
        held = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(12)]
        for number, connection in enumerate(held):
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n" if number % 2 else b"GET /metr")
        for path in ("/metrics", HEALTH):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
                assert (answer.status, bool(answer.read())) == (200, True)
        assert len(server._readers) <= 4
        assert held[0].recv(100) == b"", "the first one made room"
        for connection in held:
            connection.close()


def test_a_reader_that_goes_away_is_no_line(capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as server:
        try:
            raise BrokenPipeError
        except BrokenPipeError:
            server.handle_error(None, ("127.0.0.1", 1))
    assert capfd.readouterr() == ("", "")
