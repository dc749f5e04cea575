"""Commands in a session of their own: what crashes, hangs or eats the memory there ends there, with all it started."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from mar_tools.command_line import HANDLERS, ROOT
from mar_tools.waiting import wait_until
from vision_serving.cores import WAIT_POLICY

POLL_S = 0.02
MEMORY_POLL_S = 0.1  # to look at the memory of a tree of processes takes milliseconds
GIB = 2**30
KILL_PATIENCE_S = 10.0  # a killed process that waits for a disk or a driver takes a moment to go
FIRST_TO_DIE = "1000"  # of the kernel, where memory runs out: better this process than whoever waits for it
TAIL_BYTES = 4096
REASON_CHARS = 300


@dataclass(frozen=True)
class Finished:
    """How a command ended. `problem`: why it failed, else empty. peak_gib: of its memory, where that was watched."""

    problem: str
    seconds: float
    timed_out: bool = False
    peak_gib: float = 0.0

    @property
    def succeeded(self) -> bool:
        return not self.problem


class MemoryWatch:
    """Looks at the memory of a process and its descendants, as compilers; what they share counts for each."""

    def __init__(self, pid: int, most_gib: float) -> None:
        self._pid = pid
        self._most_gib = most_gib
        self.peak_gib = 0.0

    def is_exceeded(self) -> bool:
        total = 0
        with suppress(psutil.Error):
            leader = psutil.Process(self._pid)
            for process in (leader, *leader.children(recursive=True)):
                with suppress(psutil.Error):
                    total += process.memory_info().rss
        self.peak_gib = max(self.peak_gib, total / GIB)
        return self.peak_gib > self._most_gib


def run_isolated(command: Sequence[str], timeout_s: float, log: Path, memory_gib: float | None = None) -> Finished:
    """Run a command to its end, the timeout or the bound on its memory. Nothing of it runs on.

    Its whole output goes into `log`. The problem of a command that fails is the last line that it wrote.
    """
    started = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output, isolated(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output) as process:
        memory = None if memory_gib is None else MemoryWatch(process.pid, memory_gib)

        def is_over() -> bool:
            return (memory is not None and memory.is_exceeded()) or has_ended(process)

        in_time = wait_until(is_over, timeout_s, POLL_S if memory is None else MEMORY_POLL_S)
        problem = "" if in_time else f"gave up after {timeout_s:g} s"
        if in_time and not has_ended(process):
            problem = f"stopped at {memory_gib:g} GiB of memory"
    problem = problem or describe_end(process.returncode, log)
    return Finished(problem, time.monotonic() - started, not in_time, memory.peak_gib if memory else 0.0)


@contextmanager
def isolated(command: Sequence[str], **streams: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a process with a session and a temporary folder of its own. At the end all three are gone."""
    with tempfile.TemporaryDirectory(prefix="isolated-", ignore_cleanup_errors=True) as scratch:
        environment = isolated_environment(os.environ, scratch)
        process = subprocess.Popen(command, env=environment, start_new_session=True, **streams)
        try:
            with suppress(OSError):  # a courtesy, which not every system allows
                Path(f"/proc/{process.pid}/oom_score_adj").write_text(FIRST_TO_DIE)
            yield process
        finally:
            kill_session(process)


def isolated_environment(environment: Mapping[str, str], scratch: str) -> dict[str, str]:
    """Return an environment: Python finds this checkout's code; TMPDIR goes with it; a crash leaves a stack in the log.

    And OpenMP's threads wait as WAIT_POLICY says, unless the user says otherwise.
    """
    own = [str(HANDLERS), str(ROOT / "scripts"), str(ROOT / "client"), environment.get("PYTHONPATH", "")]
    path = os.pathsep.join(entry for entry in own if entry)
    own_values = {"PYTHONPATH": path, "PYTHONFAULTHANDLER": "1", "TMPDIR": scratch}
    return {**WAIT_POLICY, **environment, **own_values}


def python_command(module: str, *arguments: object) -> list[str]:
    """Return `python -m module ...`. `-P`: the folder that we stand in holds no modules of ours."""
    flags = ["-P"] if sys.version_info >= (3, 11) else []
    return [sys.executable, *flags, "-m", module, *map(str, arguments)]


def has_ended(process: "subprocess.Popen[bytes]") -> bool:
    """Look without collecting its status: until that is done, nothing else can get the number of its session."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def kill_session(process: "subprocess.Popen[bytes]") -> None:
    """Kill what is left of a process, its session and its descendants, and collect its status."""
    if process.returncode is not None:
        return
    wait_until(lambda: not _kill_members(process.pid), KILL_PATIENCE_S, POLL_S)
    process.wait()
    for stream in filter(None, (process.stdin, process.stdout, process.stderr)):
        with suppress(BrokenPipeError):
            stream.close()


def _kill_members(leader: int) -> int:
    """Kill what lives of a session. Return how many were left to kill."""
    members = session_members(leader)
    for member in members:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    return len(members)


def session_members(leader: int) -> list[psutil.Process]:
    """List the session that `leader` leads, and its descendants in others; zombies, which are dead, left out."""
    found = {}
    for candidate in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            is_own = os.getsid(candidate.pid) == leader or leader in (p.pid for p in candidate.parents())
            if is_own and candidate.status() != psutil.STATUS_ZOMBIE:
                found[candidate.pid] = candidate
    return list(found.values())


def describe_end(status: int, log: Path) -> str:
    """Describe a status as subprocess gives it, negative for a signal. Empty for 0."""
    if status == 0:
        return ""
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
        hint = " (memory ran out?)" if name == "SIGKILL" else ""
        return f"crashed: signal {name}{hint}"
    return f"failed: {last_message(log) or f'exit status {status}'}"


def last_message(log: Path) -> str:
    """Return the last line that says something, shortened, without the `error: ` of our own commands."""
    with log.open("rb") as content:
        content.seek(max(0, log.stat().st_size - TAIL_BYTES))
        lines = content.read().decode(errors="replace").splitlines()
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return said.removeprefix("error: ")[:REASON_CHARS]
