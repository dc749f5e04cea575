import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from http_fakes import Answer, Request, serve_requests

from mar_tools.serving.address import ServerAddress
from mar_tools.serving.config_file import with_values
from mar_tools.serving.graceful_stop import QUIET_S, answer_all, close_listeners, wait_until_quiet
from mar_tools.serving.health import ask_each, is_draining
from mar_tools.serving.ports import free_addresses
from mar_tools.serving.server import Server
from mar_tools.serving.start_record import StartRecord
from mar_tools.serving.torchserve_api import ServerError, TorchServeClient

GONE = 2**31 - 1  # no process has this number
SLOW_SERVER = """
import socket, time
listener = socket.create_server(("127.0.0.1", 0), backlog=100)
print(listener.getsockname()[1], flush=True)
while True:
    time.sleep(0.005)
    with listener.accept()[0] as connection:
        connection.recv(1)
        connection.sendall(b"answer")
"""
REFUSED = b'{"code": 503, "type": "DrainingError", "message": "this server is about to stop"}'


def test_workers_refuse_though_the_management_api_does_not_answer(tmp_path: Path) -> None:
    config = tmp_path / "config.properties"
    config.write_text(with_values("", {**free_addresses(), "disable_token_authorization": "true"}))
    (tmp_path / "logs").mkdir()
    StartRecord(temporary=str(tmp_path)).write(config)
    [problem] = answer_all(Server(config), time.monotonic() + 10, lambda step: None)
    assert "no server answers" in problem
    assert Server(config).drain_file.exists()


@pytest.mark.parametrize("day", [-86400, 86400], ids=["back", "ahead"])
def test_a_clock_that_jumps_a_day_prolongs_no_drain_and_cuts_none_short(tmp_path: Path, day: int) -> None:
    (tmp_path / "config.properties").touch()
    (tmp_path / "logs").mkdir()
    StartRecord(temporary=str(tmp_path)).write(tmp_path / "config.properties")
    (tmp_path / "drain").touch()
    os.utime(tmp_path / "drain", (time.time() - day, time.time() - day))  # as it was dated before the jump
    began = time.monotonic()
    wait_until_quiet(Server(tmp_path / "config.properties"), 30)
    assert QUIET_S <= time.monotonic() - began < 15


def test_while_one_worker_is_busy_the_others_are_not_asked_all_the_time() -> None:
    """They would take the cores that it needs."""
    asked: list[str] = []

    def answer(request: Request) -> Answer:
        asked.append(request.path)
        return Answer(503, REFUSED, {"X-Worker-Pid": "1"})

    with serve_requests(answer) as url:
        client = TorchServeClient(ServerAddress(url, url, None), time.monotonic() + 3)
        with pytest.raises(ServerError, match=f"worker {os.getpid()}"):
            ask_each(client, "digits", "1.0", {1, os.getpid()}, is_draining)  # processes that live
    assert 2 <= len(asked) <= 70


def test_an_error_of_the_frontend_itself_ends_no_waiting_for_the_other_workers() -> None:
    """A worker ended just now: its 507 has no number of a worker, as an archive that is not ours has none."""
    answers = iter([Answer(507, b'{"message": "Worker died."}'), Answer(503, REFUSED, {"X-Worker-Pid": "1"})])
    with serve_requests(lambda request: next(answers)) as url:
        client = TorchServeClient(ServerAddress(url, url, None), time.monotonic() + 10)
        assert ask_each(client, "digits", "1.0", {1, GONE}, is_draining)
    assert list(answers) == []


def test_an_answer_without_the_number_of_a_worker_is_of_an_archive_that_is_not_ours() -> None:
    with serve_requests(lambda request: Answer(200, b"[]")) as url:
        client = TorchServeClient(ServerAddress(url, url, None), time.monotonic() + 10)
        assert not ask_each(client, "digits", "1.0", {1}, is_draining)


@pytest.mark.skipif(sys.platform != "linux", reason="another process's sockets are closed on Linux alone")
def test_while_the_listeners_are_closed_a_client_is_answered_or_refused_and_never_cut_off() -> None:
    """Connections wait to be accepted all the time: closing the socket alone would reset them."""
    outcomes: list[str] = []

    def ask_until_refused(port: int) -> None:
        while True:
            try:
                client = socket.create_connection(("127.0.0.1", port), timeout=20)
            except ConnectionRefusedError:
                return
            except OSError as error:
                outcomes.append(repr(error))
                return
            with client:
                try:
                    client.sendall(b"?")
                    outcomes.append(client.recv(6).decode())
                except OSError as error:
                    outcomes.append(repr(error))

    with subprocess.Popen([sys.executable, "-c", SLOW_SERVER], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        clients = [threading.Thread(target=ask_until_refused, args=(port,)) for _ in range(20)]
        for client in clients:
            client.start()
        while len(outcomes) < 50:
            assert server.poll() is None
            time.sleep(0.01)
        closed = close_listeners(psutil.Process(server.pid), {port})
        if not closed:
            server.kill()
        for client in clients:
            client.join()
        server.kill()
    if not closed:
        pytest.skip("this kernel does not let a process use another's socket")
    assert set(outcomes) == {"answer"}
