"""A server in the foreground: what signals do to it under load, and what its exit status says."""

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import requests
from other_users import needs_root

from mar_tools.serving.processes import WORKER, find_workers, wait_until_ended
from mar_tools.serving.server import Server
from mar_tools.waiting import wait_until

from ..conftest import ROOT, run_script, write_configuration
from ..traffic import keep_asking

READY_S, END_S = 300.0, 120.0
PID_1 = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
# As the default profile of containers: the last step of a drain is not allowed to use TorchServe's sockets.
WITHOUT_PIDFD_GETFD = """
import ctypes, os, struct, sys
code = b"".join(struct.pack("=HBBI", *line) for line in (
    (0x20, 0, 0, 0), (0x15, 0, 1, 438), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)))
buffer = ctypes.create_string_buffer(code, len(code))
libc = ctypes.CDLL(None)
program = ctypes.create_string_buffer(struct.pack("@HP", 4, ctypes.addressof(buffer)))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program, 0, 0) == 0
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Foreground:
    """`serve_models.py run` of one model, and what it has said."""

    def __init__(self, folder: Path, archive: Path, before: list[str], *options: str) -> None:
        self.config = write_configuration(folder, disable_token_authorization="true")
        (folder / "model_store").mkdir()
        shutil.copy(archive, folder / "model_store")
        self.server = Server(self.config)
        self._out = folder / "out.txt"
        command = [sys.executable, *before, str(ROOT / "scripts" / "serve_models.py"), "run", "--config"]
        command = [*PID_1, *command] if before else command
        with self._out.open("wb") as output:
            self.process = subprocess.Popen([*command, self.config, *options], stdout=output, stderr=subprocess.STDOUT)

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.said() or self.process.poll() is not None, READY_S)
        assert text in self.said(), self.said()

    def said(self) -> str:
        return self._out.read_text()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.ports()['inference_address']}"

    def worker(self) -> psutil.Process:
        """Find it from outside: where this is pid 1, the server knows other numbers."""
        [found] = [process for process in self.family() if any(part.endswith(WORKER) for part in process.cmdline())]
        return found

    def family(self) -> list[psutil.Process]:
        return list(psutil.Process(self.process.pid).children(recursive=True))

    def end(self) -> int:
        return self.process.wait(END_S)


@contextmanager
def in_foreground(folder: Path, archive: Path, before: list[str], *options: str) -> Iterator[Foreground]:
    running = Foreground(folder, archive, before, *options)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            for process in [*running.family(), psutil.Process(running.process.pid)]:
                process.kill()
        running.process.wait()


def ask_until_refused(url: str, picture: bytes, outcomes: list[str]) -> None:
    """Ask as a load balancer does: it goes elsewhere when it is told to."""
    headers = {"Content-Type": "image/png"}
    while not outcomes or outcomes[-1] == "200":
        try:
            answer = requests.post(f"{url}/predictions/digits", data=picture, headers=headers, timeout=60)
        except requests.RequestException as error:
            outcomes.append(repr(error))
            return
        refused = answer.status_code == 503 and "Retry-After" in answer.headers
        outcomes.append(answer.json()["type"] if refused else str(answer.status_code))


@needs_root
@pytest.mark.skipif(sys.platform != "linux", reason="namespaces of processes are Linux's")
def test_as_a_container_has_it_a_signal_loses_no_request(archives: Path, seven: bytes, tmp_path: Path) -> None:
    """It is pid 1, and may not use TorchServe's sockets."""
    with in_foreground(tmp_path, archives / "digits.mar", ["-c", WITHOUT_PIDFD_GETFD]) as running:
        running.wait_for("serving by frontend")
        [main] = psutil.Process(running.process.pid).children()
        orphan = ["nsenter", "--target", str(main.pid), "--pid", "sh", "-c", "(true &)"]
        subprocess.run(orphan, check=True)
        assert wait_until(lambda: zombies_of(main) == [], 20)
        restarted = run_script("serve_models.py", "restart", "--config", running.config)
        assert (restarted.returncode, "is run in the foreground" in restarted.stderr) == (1, True)

        clients: list[list[str]] = [[] for _ in range(6)]
        threads = [threading.Thread(target=ask_until_refused, args=(running.url, seven, own)) for own in clients]
        for thread in threads:
            thread.start()
        assert wait_until(lambda: all(len(own) >= 3 for own in clients), END_S)
        worker, temporary = running.worker(), running.server.temporary
        worker.suspend()  # what is asked now waits
        main.send_signal(signal.SIGTERM)
        running.wait_for("answering what was asked until now")
        worker.resume()
        for thread in threads:
            thread.join()
        assert running.end() == 0, running.said()
        assert {outcome for own in clients for outcome in own[:-1]} == {"200"}
        assert [own[-1] for own in clients] == ["DrainingError"] * 6
        assert {entry["type"] for entry in lines_of_failures(running.said())} == {"DrainingError"}
        assert not temporary.exists()


@needs_root
def test_clients_that_never_go_elsewhere_make_it_say_that_some_were_cut_off(
    archives: Path, seven: bytes, tmp_path: Path
) -> None:
    short = ("--drain-timeout-s", "3")
    with in_foreground(tmp_path, archives / "digits.mar", ["-c", WITHOUT_PIDFD_GETFD], *short) as running:
        running.wait_for("serving by frontend")
        [main] = psutil.Process(running.process.pid).children()
        headers = {"Content-Type": "image/png"}
        with keep_asking(
            lambda: requests.post(f"{running.url}/predictions/digits", seven, headers=headers, timeout=60)
        ):
            main.send_signal(signal.SIGTERM)
            assert running.end() == 4
        assert "clients still asked" in running.said()


def zombies_of(process: psutil.Process) -> list[psutil.Process]:
    return [child for child in process.children() if child.status() == psutil.STATUS_ZOMBIE]


def lines_of_failures(text: str) -> list[dict[str, str]]:
    entries = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [entry for entry in entries if entry.get("event") == "request_failed"]


def test_a_second_signal_stops_at_once(archives: Path, seven: bytes, tmp_path: Path) -> None:
    """The worker is halted, and the drain would wait for it."""
    long = ("--drain-timeout-s", str(10 * END_S))
    with in_foreground(tmp_path, archives / "digits.mar", [], *long) as running:
        running.wait_for("serving by frontend")
        running.worker().suspend()
        family = running.family()
        running.process.send_signal(signal.SIGINT)
        running.wait_for("answering what was asked until now")
        running.process.send_signal(signal.SIGTERM)
        assert running.end() == 4
        assert "stopped at once" in running.said()
        assert wait_until_ended(family, 0) == []


def test_a_frontend_that_is_killed_ends_the_command_with_a_status_of_its_own(archives: Path, tmp_path: Path) -> None:
    with in_foreground(tmp_path, archives / "digits.mar", []) as running:
        running.wait_for("serving by frontend")
        frontend = running.server.process()
        assert frontend is not None
        workers = find_workers(running.config, running.server.temporary)
        frontend.kill()
        assert running.end() == 3
        assert f"frontend {frontend.pid} has ended: signal SIGKILL" in running.said()
        assert wait_until_ended(workers, 0) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT], ids=["SIGTERM", "SIGQUIT"])
def test_a_signal_during_the_start_ends_it(archives: Path, tmp_path: Path, number: signal.Signals) -> None:
    with in_foreground(tmp_path, archives / "digits.mar", []) as running:
        assert wait_until(lambda: running.server.process() is not None, READY_S)
        family = running.family()
        running.process.send_signal(number)
        assert running.end() == 0
        assert "asked to stop during the start" in running.said()
        assert wait_until_ended(family, 0) == []


def test_what_cannot_start_ends_with_status_1_and_its_reason(tmp_path: Path) -> None:
    torn = tmp_path / "torn.mar"
    torn.write_bytes(b"torn")
    folder = tmp_path / "server"
    folder.mkdir()
    with in_foreground(folder, torn, []) as running:
        assert running.end() == 1
        assert "torn.mar: not a readable archive" in running.said()


def test_a_store_without_archives_is_named(tmp_path: Path) -> None:
    (note := tmp_path / "note.txt").write_text("no archive")
    with in_foreground(tmp_path, note, []) as running:
        running.wait_for("serving by frontend")
        assert f"serves no model: no archive in {tmp_path}/model_store; put one there" in running.said()
        running.process.terminate()
        assert running.end() == 0
