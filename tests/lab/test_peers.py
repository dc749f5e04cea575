"""A peer's environment, start, readiness and end, with a small real server; and the files of the peers that we have."""

import io
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import psutil
import pytest
import requests
import yaml
from conftest import TinyModel

from lab.peers import peers
from lab.peers.peer_arguments import ServerArguments
from lab.peers.peer_servers import load_model
from lab.peers.peers import PEERS, Peer, PeerError, ServerSettings, find_peers, install_peer, run_peer
from mar_tools.load_testing.answers import Expected, Found, expect_answers
from mar_tools.load_testing.targets import Request, prepare_requests
from mar_tools.serving.ports import find_free_ports
from vision_serving.errors import ConfigError

ALL_PEERS = ("bentoml", "fastapi", "litserve", "mlserver", "mosec", "pytriton", "ray", "stock")
SERVER = '''
"""A server as the peers' are, of the standard library."""
from http.server import BaseHTTPRequestHandler, HTTPServer
from lab.peers.peer_arguments import parse_server_arguments
from lab.peers.peer_servers import load_model

arguments = parse_server_arguments(__doc__)
model = load_model(arguments)

class Predict(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        (answer,) = model.predict([model.decode(body)])
        self.send_response(200 if self.path == "/predict" else 404)
        self.end_headers()
        self.wfile.write(answer)

HTTPServer((arguments.host, arguments.port), Predict).serve_forever()
'''


MakePeer = Callable[..., Peer]


@pytest.fixture
def make_peer(tmp_path: Path) -> MakePeer:
    """A peer without requirements: `make_peer(server, **keys of peer.yaml)`."""

    def make(server: str = SERVER, requirements: str = "", **keys: object) -> Peer:
        folder = tmp_path / "small"
        folder.mkdir()
        (folder / "serve.py").write_text(server)
        (folder / "requirements.txt").write_text(requirements)
        document = {"title": "Small", "documentation": "https://example.org", "path": "/predict", **keys}
        (folder / "peer.yaml").write_text(yaml.safe_dump(document))
        return peers.read_peer(folder)

    return make


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for a peer without requirements."""
    folder = tmp_path_factory.mktemp("installed")
    (folder / "requirements.txt").touch()
    peer = Peer(folder, peers.PeerFile(title="Small", documentation="https://example.org", path="/predict"))
    install_peer(peer)
    return peer.environment


@pytest.fixture
def make_installed_peer(make_peer: MakePeer, environment: Path) -> MakePeer:
    """As make_peer, with an environment that it need not make for seconds."""

    def make(server: str = SERVER, **keys: object) -> Peer:
        peer = make_peer(server, **keys)
        peer.environment.symlink_to(environment)
        return peer

    return make


@pytest.fixture(scope="module")
def picture() -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def export(tiny_classifier: TinyModel) -> Path:
    return tiny_classifier.folders["openvino"]


@pytest.fixture(scope="module")
def known(export: Path, picture: bytes) -> Request:
    """A request with the answer that our handler gives in this process."""
    return prepare_requests([picture], expected=expect_answers(export, [picture]))[0]


def free_port() -> int:
    (port,) = find_free_ports(1)
    return port


def arguments_for(export: Path, mode: str) -> ServerArguments:
    return ServerArguments(mode, export, "127.0.0.1", 0, workers=1, threads=1, batch_size=2, batch_delay_ms=1)


def test_a_peer_serves_the_answers_of_our_handler_and_leaves_nothing_behind(
    make_peer: MakePeer, export: Path, known: Request
) -> None:
    with run_peer(make_peer(), "artifact", export, free_port(), ServerSettings(workers=1), known) as target:
        assert known.is_right(requests.post(target.url, data=known.body, headers=dict(known.headers)).content)
        assert target.pid is not None
        process = psutil.Process(target.pid)
        assert process.is_running()
    assert target.name == "small-artifact"
    assert target.seconds_to_ready > 0
    assert not process.is_running()


def test_the_idiomatic_model_finds_the_class_that_the_artifact_finds(
    make_peer: MakePeer, export: Path, known: Request, picture: bytes
) -> None:
    model = load_model(arguments_for(export, "idiomatic"))
    (answer,) = model.predict([model.decode(picture)])
    assert known.is_right(answer)  # Pillow and torch resize to pixels that differ by one level at most


def test_idiomatic_servers_are_classifiers(tiny_detector: TinyModel) -> None:
    with pytest.raises(ConfigError, match="task detection; idiomatic servers are classifiers"):
        load_model(arguments_for(tiny_detector.folders["openvino"], "idiomatic"))


def test_arguments_reach_the_processes_that_a_framework_starts(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEER_SERVER_ARGUMENTS", "")  # restored at the end
    arguments = arguments_for(export, "artifact")
    arguments.to_environment()
    assert ServerArguments.from_environment() == arguments


def test_a_wrong_answer_is_no_readiness(make_installed_peer: MakePeer, export: Path, known: Request) -> None:
    other = replace(known, expected=Expected((Found(1.0, "no such class"),)))
    with (
        pytest.raises(PeerError, match=r'Small: a wrong answer: {"classes"'),
        run_peer(make_installed_peer(), "artifact", export, free_port(), ServerSettings(workers=1), other),
    ):
        pytest.fail("the server was taken for ready")


def test_a_server_that_ends_says_why(make_installed_peer: MakePeer, export: Path, known: Request) -> None:
    peer = make_installed_peer("import sys; sys.exit('no licence')")
    with (
        pytest.raises(PeerError, match=r"Small ended during start: no licence; see .*serve-artifact.log"),
        run_peer(peer, "artifact", export, free_port(), ServerSettings(), known),
    ):
        pytest.fail("the server was taken for ready")


def test_a_server_that_never_answers_is_given_up(
    make_installed_peer: MakePeer, export: Path, known: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "READY_TIMEOUT_S", 0.3)
    with (
        pytest.raises(PeerError, match=r"Small was not ready in 0\.3 s: no answer"),
        run_peer(
            make_installed_peer("import time; time.sleep(60)"), "artifact", export, free_port(), ServerSettings(), known
        ),
    ):
        pytest.fail("the server was taken for ready")


def test_a_taken_port_is_refused_before_the_start(make_installed_peer: MakePeer, export: Path, known: Request) -> None:
    with socket.socket() as occupant:
        occupant.bind(("127.0.0.1", 0))
        occupant.listen()
        port = occupant.getsockname()[1]
        with (
            pytest.raises(PeerError, match=f"port {port} is taken"),
            run_peer(make_installed_peer(), "artifact", export, port, ServerSettings(), known),
        ):
            pytest.fail("two servers on one port")


def test_an_unknown_mode_is_refused(make_peer: MakePeer, export: Path, known: Request) -> None:
    with (
        pytest.raises(PeerError, match=r"unknown mode 'fast'; expected one of \['artifact', 'idiomatic'\]"),
        run_peer(make_peer(), "fast", export, 1, ServerSettings(), known),
    ):
        pytest.fail("started")


def test_an_environment_is_made_once_for_its_requirements(make_peer: MakePeer) -> None:
    peer = make_peer()
    stamp = install_peer(peer).parents[1] / "installed"
    first = stamp.stat().st_mtime_ns
    install_peer(peer)
    assert stamp.stat().st_mtime_ns == first
    (peer.folder / "requirements.txt").write_text("# other\n")
    install_peer(peer)
    assert stamp.stat().st_mtime_ns != first


def test_an_environment_that_fails_says_what_pip_said_and_is_tried_again(make_peer: MakePeer) -> None:
    peer = make_peer(requirements="./no-such-folder\n")
    for _ in range(2):
        with pytest.raises(PeerError, match=r"Small: install failed: .*no-such-folder"):
            install_peer(peer)


def test_a_preparation_that_fails_says_why(make_installed_peer: MakePeer, export: Path, known: Request) -> None:
    peer = make_installed_peer(prepare=["pack.py", "{reference}", "{folder}/x.mar"])
    (peer.folder / "pack.py").write_text("import sys; sys.exit(f'cannot pack {sys.argv[1]} into {sys.argv[2]}')")
    with (
        pytest.raises(
            PeerError, match=r"prepare failed: cannot pack .*/eager-fp32 into .*/small/x\.mar; see .*prepare\.log"
        ),
        run_peer(peer, "artifact", export, free_port(), ServerSettings(), known),
    ):
        pytest.fail("started")


def test_the_peers_are_those_that_the_comparison_is_about() -> None:
    assert tuple(find_peers()) == ALL_PEERS


@pytest.mark.parametrize("name", ALL_PEERS)
def test_a_peer_pins_what_it_installs_and_has_a_server(name: str) -> None:
    lines = (PEERS / name / "requirements.txt").read_text().splitlines()
    pinned = [line.partition("#")[0].strip() for line in lines]
    assert all(re.fullmatch(r"[a-z0-9-]+(\[[a-z]+\])?==[0-9][0-9.]*", line) for line in pinned if line)
    compile((PEERS / name / "serve.py").read_text(), f"{name}/serve.py", "exec")


@pytest.mark.parametrize("name", ALL_PEERS)
def test_a_peer_knows_the_modes_that_its_server_takes(name: str) -> None:
    modes = ("default", "tuned") if name == "stock" else ("artifact", "idiomatic")
    assert find_peers()[name].file.modes == modes
