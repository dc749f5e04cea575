"""How fast the clients are: what they get out of a server that does next to nothing."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from mar_tools.benchmarking.targets import Target
from mar_tools.isolation import isolated, python_command


@contextmanager
def start_trivial_server() -> Iterator[Target]:
    """A trivial server in a process of its own, gone at the end."""
    command = python_command("mar_tools.benchmarking.trivial_server")
    with isolated(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield Target("trivial server", f"http://127.0.0.1:{port}/predictions/none", pid=process.pid)
