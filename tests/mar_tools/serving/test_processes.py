"""Which processes and folders are a server's own: by its settings and its record, never by looks or by the shell."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from other_users import OPERATOR, STRANGER, as_user, looking_like, needs_root, open_folder

from mar_tools.serving.config_file import with_values
from mar_tools.serving.ports import free_addresses
from mar_tools.serving.processes import FRONTEND, WORKER, find_frontend, find_workers, wait_until_ended
from mar_tools.serving.server import Server
from mar_tools.serving.start_record import StartRecord, record_path
from mar_tools.serving.torchserve_api import ServerError
from mar_tools.waiting import wait_until

LISTEN = """
import socket, sys, time
with socket.create_server(("127.0.0.1", int(sys.argv[1]))):
    print(flush=True)
    time.sleep(60)
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_settings(tmp_path)


@pytest.fixture
def operated() -> Iterator[Path]:
    """Settings of OPERATOR, with the record of a server that left a folder."""
    with open_folder(OPERATOR) as folder:
        config = write_settings(folder)
        record(config, folder / "vision-serving-left")
        for path in folder.rglob("*"):
            os.chown(path, OPERATOR, OPERATOR)
        yield config


def write_settings(folder: Path) -> Path:
    config = folder / "config.properties"
    config.write_text(with_values("", {**free_addresses(), "disable_token_authorization": "true"}))
    return config


def record(config: Path, temporary: Path) -> Path:
    temporary.mkdir()
    (config.parent / "logs").mkdir()
    StartRecord(temporary=str(temporary)).write(config)
    return temporary


def worker_of(temporary: Path) -> tuple[str, ...]:
    return "python", f"/ts/{WORKER}", "--sock-name", f"{temporary}/.ts.sock.9000"


def frontend_of(config: Path) -> tuple[str, ...]:
    return "java", FRONTEND, "-f", str(config)


def test_a_frontend_is_found_by_its_settings_though_the_record_is_lost(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    with looking_like(*frontend_of(config)) as process:
        found = find_frontend(config)
        assert found is not None
        assert found.pid == process.pid
        assert Server(config).stop()
        assert process.wait(10) != 0
    assert not Server(config).stop()


@pytest.mark.parametrize("content", [b"", b"{}", b'{"temporary": "/tmp/x"}', b'{"unknown": 1}', b"\0" * 40])
def test_a_frontend_is_found_and_stopped_though_the_record_is_torn(config: Path, content: bytes) -> None:
    record(config, config.parent / "vision-serving-1")
    record_path(config).write_bytes(content)
    command = (*frontend_of(config), f"-Djava.io.tmpdir={config.parent}/vision-serving-1")
    with looking_like(*command) as process:
        assert Server(config).stop()
        assert process.wait(10) != 0
    assert not (config.parent / "vision-serving-1").exists()


def test_no_record_finds_no_frontend_whose_folder_is_called_none(config: Path) -> None:
    with looking_like("java", FRONTEND, "-Djava.io.tmpdir=None"), looking_like("java", FRONTEND, "-Djava.io.tmpdir="):
        assert find_frontend(config) is None


def test_a_folder_that_is_gone_was_no_server(config: Path) -> None:
    record(config, config.parent / "vision-serving-1").rmdir()
    assert Server(config).stop() is False
    assert not record_path(config).exists()


def test_a_frontend_of_a_copy_of_the_settings_is_another(config: Path) -> None:
    copy = config.with_name("copy.properties")
    copy.write_text(config.read_text())
    with looking_like(*frontend_of(copy)):
        assert find_frontend(config) is None


def test_a_folder_is_found_by_the_record_whatever_the_shell_says(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = record(config, config.parent / "vision-serving-1")
    monkeypatch.setenv("TMPDIR", str(config.parent / "elsewhere"))
    with looking_like(*worker_of(temporary)) as worker:
        assert [found.pid for found in find_workers(config, temporary)] == [worker.pid]
        assert Server(config).stop()
        assert worker.wait(10) != 0
    assert not temporary.exists()


@needs_root
def test_what_others_make_look_like_a_server_is_left_alone(operated: Path) -> None:
    """An operator who is not root could not even end it."""
    temporary = operated.parent / "vision-serving-left"
    with (
        looking_like(*worker_of(temporary), user=STRANGER) as worker,
        looking_like(*frontend_of(operated), user=STRANGER) as frontend,
    ):
        assert as_user(OPERATOR, Server(operated).stop) is True
        assert as_user(OPERATOR, Server(operated).stop) is False
        assert Server(operated).stop() is False, "root's neither"
        assert (worker.poll(), frontend.poll()) == (None, None)
    assert not temporary.exists()


@needs_root
def test_a_folder_that_another_user_has_by_now_stays(operated: Path) -> None:
    temporary = operated.parent / "vision-serving-left"
    os.chown(temporary, STRANGER, STRANGER)
    (temporary / "theirs").touch()
    assert as_user(OPERATOR, Server(operated).stop) is False, "nothing of ours was there"
    assert (temporary / "theirs").exists()
    assert not record_path(operated).exists()


@needs_root
def test_root_stops_the_server_of_the_user_who_owns_its_settings(operated: Path) -> None:
    with looking_like(*worker_of(operated.parent / "vision-serving-left"), user=OPERATOR) as worker:
        assert Server(operated).stop()
        assert worker.wait(10) != 0


def test_a_taken_port_fails_a_start_and_a_stop_that_finds_nothing(config: Path) -> None:
    server = Server(config)
    with socket.create_server(("127.0.0.1", server.ports()["management_address"])) as squatter:
        port = squatter.getsockname()[1]
        for attempt in (server.stop, lambda: server.start(5, lambda step: None)):
            with pytest.raises(ServerError, match=rf"port {port} \(management_address .* by process {os.getpid()} \("):
                attempt()
    assert server.stop() is False


@needs_root
def test_a_user_hears_that_a_port_is_anothers(operated: Path) -> None:
    port = Server(operated).ports()["grpc_inference_port"]
    with subprocess.Popen([sys.executable, "-c", LISTEN, str(port)], stdout=subprocess.PIPE) as listener:
        assert listener.stdout is not None
        listener.stdout.readline()
        error = as_user(OPERATOR, Server(operated).stop)
        listener.kill()
    assert "(grpc_inference_port in config.properties) is taken by a process of another user" in str(error)


LEADER_ENDS = """
import ctypes, platform, sys, threading
threading.Thread(target=sys.stdin.read).start()
print(flush=True)
ctypes.CDLL(None).syscall(93 if platform.machine() == "aarch64" else 60, 0)  # exit, of this thread alone
"""


def test_a_process_runs_as_long_as_one_of_its_threads_does() -> None:
    """A frontend that was killed holds its ports until its last thread has gone, though its first is a zombie."""
    command = [sys.executable, "-c", LEADER_ENDS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        found = psutil.Process(process.pid)
        assert wait_until(lambda: found.status() == psutil.STATUS_ZOMBIE, 10, 0.05)
        assert wait_until_ended([found], 0) == [found]
        process.stdin.close()
        assert wait_until_ended([found], 10) == []
