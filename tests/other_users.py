"""Another user of the machine: runs a function there, and processes that look like a server's."""

import os
import pickle
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

OPERATOR, STRANGER = 40_001, 40_002  # users without a name
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


def as_user(user: int, function: Callable[[], Any]) -> Any:
    """Return what the function returns or raises, called by this user in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
        try:
            found = function()
        except Exception as error:
            found = error
        os.write(writing, pickle.dumps(found))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        content = answer.read()
    os.waitpid(child, 0)
    return pickle.loads(content)


@contextmanager
def looking_like(*command: str, user: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process with these words on its command line, which does nothing."""
    shell = ["/bin/sh", "-c", "echo; read line", *command]
    with subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, user=user, cwd="/") as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()  # Popen may return before the system shows the new command line
            yield process
        finally:
            process.kill()


@contextmanager
def open_folder(user: int) -> Iterator[Path]:
    """A folder of this user, which others may enter; pytest's own are root's alone."""
    folder = Path(tempfile.mkdtemp(prefix="operated-"))
    try:
        os.chown(folder, user, user)
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder)
