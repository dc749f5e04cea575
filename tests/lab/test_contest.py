"""Which other servers are started, and that only one of them runs at a time."""

import signal
import sys
import time
from collections.abc import Iterator

import psutil
import pytest
import requests

from lab.peers.contest import Contestant, awake, choose_peers, signal_tree
from lab.peers.peers import ServerSettings, StartedTarget, find_peers
from mar_tools.child_processes import isolated
from mar_tools.load_testing.targets import prepare_requests
from mar_tools.serving.ports import LOOPBACK, find_free_ports
from vision_serving.errors import ConfigError

SERVER = """
import subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Answer(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["litserve"], ["litserve artifact", "litserve idiomatic"]),
        (["litserve-artifact", "litserve"], ["litserve artifact", "litserve idiomatic"]),
        (["stock-tuned", "mosec-idiomatic"], ["stock tuned", "mosec idiomatic"]),
    ],
)
def test_a_name_is_a_server_in_all_its_modes_or_in_one(names: list[str], chosen: list[str]) -> None:
    assert [f"{peer.name} {mode}" for peer, mode in choose_peers(names, find_peers())] == chosen


def test_an_unknown_server_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown server 'triton'; expected one of \['bentoml', .*'stock-tuned'\]"):
        choose_peers(["triton"], find_peers())


@pytest.fixture
def contestant() -> Iterator[Contestant]:
    """A server with a child in a session of its own, as Ray's are."""
    (port,) = find_free_ports(1)
    with isolated([sys.executable, "-c", SERVER, str(port)]) as process:
        target = StartedTarget("small", f"http://{LOOPBACK}:{port}/", pid=process.pid)
        found = Contestant(target, prepare_requests([b"image"]), ServerSettings(), halts=True)
        try:
            with awake(found):  # until it is up
                pass
            yield found
        finally:
            for member in family(found):
                member.kill()


def family(contestant: Contestant) -> list[psutil.Process]:
    server = psutil.Process(contestant.target.pid)
    return [server, *server.children(recursive=True)]


def wait_until_halted(contestant: Contestant, halted: bool) -> None:
    """All of them, or none. Signals take effect a moment after they were sent."""
    while {member.status() == "stopped" for member in family(contestant)} != {halted}:
        time.sleep(0.01)


def test_a_contestant_runs_only_while_it_is_measured(contestant: Contestant) -> None:
    assert len(family(contestant)) == 2
    wait_until_halted(contestant, True)
    with awake(contestant):
        wait_until_halted(contestant, False)
        assert requests.post(contestant.target.url, data=b"image", timeout=30).ok
    wait_until_halted(contestant, True)


def test_who_is_gone_cannot_be_halted() -> None:
    with isolated([sys.executable, "-c", "pass"]) as process:
        process.wait()
    signal_tree(process.pid, signal.SIGSTOP)
