import os
import signal
import sys
import threading
from pathlib import Path

import psutil
import pytest

from mar_tools.child_processes import isolated_environment, last_message, python_command, run_isolated
from mar_tools.command_line import ROOT
from mar_tools.waiting import wait_until

CRASH = "import os, signal; os.kill(os.getpid(), signal.{name})"
# A child in a session of its own, one in a group of its own, and a leader that ignores what can be ignored.
FAMILY = """
import os, pathlib, signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
own = [subprocess.Popen(["sleep", "60"], preexec_fn=leave) for leave in (os.setsid, os.setpgrp)]
pathlib.Path({pids!r}).write_text(" ".join(str(pid) for pid in (os.getpid(), own[0].pid, own[1].pid)))
{end}
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("pass", ""),
        (CRASH.format(name="SIGSEGV"), "crashed: signal SIGSEGV"),
        (CRASH.format(name="SIGKILL"), "crashed: signal SIGKILL (memory ran out?)"),
        ("raise ValueError('no such operator')", "failed: ValueError: no such operator"),
        ("import sys; sys.exit('error: this graph is not for me\\n')", "failed: this graph is not for me"),
        ("import sys; sys.exit(3)", "failed: exit status 3"),
    ],
    ids=["success", "segmentation fault", "killed", "exception", "error of ours", "silent"],
)
def test_every_end_has_its_words(tmp_path: Path, code: str, problem: str) -> None:
    finished = run_isolated(python(code), 20, tmp_path / "logs" / "command.log")
    assert (finished.problem, finished.succeeded) == (problem, not problem)


def read_pids(path: Path) -> list[int]:
    wait_until(lambda: path.is_file() and path.read_text(), timeout_s=20, poll_s=0.02)
    return [int(pid) for pid in path.read_text().split()]


def running(pids: list[int]) -> list[int]:
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def test_what_hangs_is_given_up_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    finished = run_isolated(python(FAMILY.format(pids=str(pids), end="time.sleep(60)")), 1.5, tmp_path / "log")
    assert finished.problem == "gave up after 1.5 s"
    assert 1.5 <= finished.seconds < 10
    assert len(read_pids(pids)) == 3
    assert running(read_pids(pids)) == []


def test_what_a_command_leaves_in_its_session_ends_with_it(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = FAMILY.format(pids=str(pids), end="").replace("os.setsid", "os.getpid")
    assert run_isolated(python(code), 20, tmp_path / "log").succeeded
    assert running(read_pids(pids)) == []


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_leaves_nothing_running(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    def interrupt() -> None:
        read_pids(pids)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run_isolated(python(FAMILY.format(pids=str(pids), end="time.sleep(60)")), 30, tmp_path / "log")
    assert running(read_pids(pids)) == []


def test_its_temporary_files_go_with_it(tmp_path: Path) -> None:
    code = "import tempfile; print(tempfile.mkdtemp(), flush=True); " + CRASH.format(name="SIGKILL")
    run_isolated(python(code), 20, tmp_path / "log")
    left = Path((tmp_path / "log").read_text().strip())
    assert left.name.startswith("tmp")
    assert not left.parent.exists()


def test_it_runs_this_checkout_s_code_wherever_we_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if sys.version_info >= (3, 11):
        (tmp_path / "mar_tools.py").write_text("raise SystemExit('a stranger of the same name')")
    finished = run_isolated(python_command("mar_tools.machine"), 20, tmp_path / "log")
    assert finished.problem == ""
    path = isolated_environment({"PYTHONPATH": "/own"}, "/scratch")["PYTHONPATH"].split(os.pathsep)
    assert path == [str(ROOT / "handlers"), str(ROOT / "scripts"), str(ROOT / "client"), "/own"]


def test_the_last_line_that_says_something_is_the_reason(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 10_000 + b"\nerror: too \xff many dimensions\n\n  \n")
    assert last_message(log) == "too � many dimensions"


@pytest.mark.parametrize(("said", "expected"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_that_wait_sleep_unless_the_user_says_otherwise(said: dict[str, str], expected: str) -> None:
    assert isolated_environment(said, "/tmp")["OMP_WAIT_POLICY"] == expected


def test_what_takes_too_much_memory_is_stopped_with_what_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    eats = "x = bytearray(300 * 2**20); time.sleep(60)"
    finished = run_isolated(python(FAMILY.format(pids=str(pids), end=eats)), 20, tmp_path / "log", memory_gib=0.2)
    assert finished.problem == "stopped at 0.2 GiB of memory"
    assert not finished.timed_out
    assert finished.peak_gib > 0.2
    assert running(read_pids(pids)) == []


def test_the_most_memory_of_a_command_and_its_children_is_told(tmp_path: Path) -> None:
    child = "x = bytearray(200 * 2**20); import time; time.sleep(1)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    finished = run_isolated(python(code), 20, tmp_path / "log", memory_gib=2)
    assert finished.succeeded
    assert 0.2 < finished.peak_gib < 2
