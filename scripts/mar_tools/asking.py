"""A process that sleeps until it is asked: JSON lines in, JSON lines out. Both sides of it.

The parent has `start_asked_process` and `ask`; the module that runs in the process has `own_output` and `answer`.
"""

import io
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import orjson

from mar_tools.child_processes import describe_end, has_ended, isolated, kill_session, python_command
from mar_tools.waiting import wait_until

CHUNK_BYTES = 65536
END_PATIENCE_S = 10.0  # a crash writes a core dump or a stack before the process is gone


class ProcessLostError(Exception):
    """The process crashed, hangs, or gave up; the message says which."""


class AskedProcess:
    """The parent's side of one process. Every answer has to come within `timeout_s`."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path, timeout_s: float) -> None:
        self.pid = process.pid
        self._process = process
        self._log = log
        self._timeout_s = timeout_s

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Raises ProcessLostError; the process is gone then."""
        assert self._process.stdin is not None
        if self._process.returncode is not None:
            raise ProcessLostError("its process has ended")
        try:
            self._process.stdin.write(orjson.dumps(question) + b"\n")
        except BrokenPipeError as error:
            raise ProcessLostError(self._describe_loss()) from error
        answer: dict[str, Any] = orjson.loads(self._read_line())
        if "problem" in answer:
            kill_session(self._process)
            raise ProcessLostError(answer["problem"])
        return answer

    def _read_line(self) -> bytes:
        assert self._process.stdout is not None
        output = self._process.stdout.fileno()
        deadline = time.monotonic() + self._timeout_s
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([output], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                kill_session(self._process)
                raise ProcessLostError(f"gave up after {self._timeout_s:g} s")
            chunk = os.read(output, CHUNK_BYTES)
            if not chunk:
                raise ProcessLostError(self._describe_loss())
            line += chunk
        return line

    def _describe_loss(self) -> str:
        wait_until(lambda: has_ended(self._process), END_PATIENCE_S, poll_s=0.02)
        kill_session(self._process)
        return describe_end(self._process.returncode, self._log) or "ended before its time"


@contextmanager
def start_asked_process(module: str, log: Path, timeout_s: float) -> Iterator[AskedProcess]:
    """Start a process of a module. log: what it says is added there."""
    command = python_command(module)
    pipe = subprocess.PIPE
    with log.open("ab") as errors, isolated(command, stdin=pipe, stdout=pipe, stderr=errors, bufsize=0) as process:
        yield AskedProcess(process, log, timeout_s)


def own_output() -> TextIO:
    """Return the pipe to the parent, safe from libraries that print to standard output."""
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True)  # the process is killed at the end, with what was not written yet
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return pipe


def answer(answers: TextIO, **values: Any) -> None:
    """Write one answer as a line. `problem=` is the last one: whoever asked gets it as a ProcessLostError."""
    print(orjson.dumps(values).decode(), file=answers, flush=True)
