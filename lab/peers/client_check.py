"""How fast the clients are: what they get out of a server that does next to nothing."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from mar_tools.child_processes import isolated, python_command
from mar_tools.load_testing.targets import Target


@contextmanager
def start_trivial_server() -> Iterator[Target]:
    """A trivial server in a process of its own, gone at the end."""
    command = python_command("lab.peers.trivial_server")
    with isolated(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield Target("trivial server", f"http://127.0.0.1:{port}/predictions/none", pid=process.pid)
