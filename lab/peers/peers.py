"""The servers that ours is compared with: `lab/peers/servers/<name>/`, each in an environment of its own.

peer.yaml         what it is and how to ask it: the content of Peer
requirements.txt  pinned; PyTorch and what else is missing comes from the interpreter that runs this
serve.py          the whole server; peer_arguments.py has its command line, peer_servers.py what it serves
.venv/            made by install_peer
"""

import hashlib
import shutil
import signal
import site
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import requests
from pydantic import Field

from mar_tools.child_processes import has_ended, isolated, last_message, run_isolated, session_members
from mar_tools.command_line import HANDLERS, ROOT
from mar_tools.exporting.export_folders import REFERENCE
from mar_tools.load_testing.targets import Encoding, Request, Target
from mar_tools.serving.ports import LOOPBACK, is_free
from mar_tools.waiting import wait_until
from vision_serving.errors import VisionServingError
from vision_serving.validation import StrictModel, parse_config, read_yaml

PEERS = ROOT / "lab" / "peers" / "servers"
STEP_TIMEOUT_S = 1800.0
READY_TIMEOUT_S = 300.0
PROBE_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
POLL_S = 0.1


class PeerError(VisionServingError):
    """A peer cannot be installed, started, or gives wrong answers."""


class PeerFile(StrictModel):
    """The content of `peer.yaml`.

    title, documentation  for people
    path                  of predictions
    encoding              how it takes an image
    modes                 what its serve.py knows under --mode
    prepare               a file of the folder, with arguments, to run before the server starts; `{reference}` is the
                          export of eager fp32, `{folder}` the peer's
    busy_when_idle        it takes CPU time while nobody asks it, or for long after: halted while others are measured
    """

    title: str
    documentation: str
    path: str = Field(pattern="^/")
    encoding: Encoding = "raw"
    modes: tuple[str, ...] = ("artifact", "idiomatic")
    prepare: tuple[str, ...] = ()
    busy_when_idle: bool = False


@dataclass(frozen=True)
class Peer:
    """One folder under `lab/peers/servers`."""

    folder: Path
    file: PeerFile

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def environment(self) -> Path:
        return self.folder / ".venv"

    @property
    def python(self) -> Path:
        return self.environment / "bin" / "python"


@dataclass(frozen=True)
class ServerSettings:
    """How a peer uses the machine. threads: of the model, in each worker."""

    workers: int = 2
    threads: int = 1
    batch_size: int = 4
    batch_delay_ms: int = 2


@dataclass(frozen=True)
class StartedTarget(Target):
    """A peer that has given a right answer, so many seconds after its process began."""

    pid: int = 0
    seconds_to_ready: float = 0.0


def read_peer(folder: Path) -> Peer:
    """Raises ConfigError."""
    path = folder / "peer.yaml"
    return Peer(folder.resolve(), parse_config(PeerFile, read_yaml(path), str(path)))


def find_peers(folder: Path = PEERS) -> dict[str, Peer]:
    """Return all peers by name, sorted. Raises ConfigError."""
    return {path.parent.name: read_peer(path.parent) for path in sorted(folder.glob("*/peer.yaml"))}


def install_peer(peer: Peer) -> Path:
    """Make the peer's environment where it is missing or outdated; return its interpreter. Raises PeerError."""
    stamp = peer.environment / "installed"
    requirements = peer.folder / "requirements.txt"
    parts = (sys.version, sys.prefix, str(ROOT), requirements.read_text(encoding="utf-8"))
    wanted = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return peer.python
    log = peer.folder / "install.log"
    shutil.rmtree(peer.environment, ignore_errors=True)
    _run_step(peer, "install", [sys.executable, "-m", "venv", "--without-pip", str(peer.environment)], log)
    _share_packages(peer)
    pip = [sys.executable, "-m", "pip", "--python", str(peer.python), "install", "--quiet"]
    _run_step(peer, "install", [*pip, "--disable-pip-version-check", "-r", str(requirements)], log)
    stamp.write_text(wanted)
    return peer.python


def _share_packages(peer: Peer) -> None:
    """Take what the environment lacks from the running interpreter, after its own packages; then our code."""
    shared = [*site.getsitepackages(), str(HANDLERS), str(ROOT / "scripts"), str(ROOT)]
    for packages in peer.environment.glob("lib/python*/site-packages"):
        (packages / "interpreter.pth").write_text("\n".join(shared) + "\n", encoding="utf-8")


def _run_step(peer: Peer, step: str, command: list[str], log: Path) -> None:
    finished = run_isolated(command, STEP_TIMEOUT_S, log)
    if not finished.succeeded:
        raise PeerError(f"{peer.file.title}: {step} {finished.problem}; see {log}")


@contextmanager
def run_peer(
    peer: Peer, mode: str, export: Path, port: int, settings: ServerSettings, probe: Request
) -> Iterator[StartedTarget]:
    """Install and start a peer's server, wait for its first right answer, and stop all of it at the end.

    export: the folder of the artifact; the idiomatic and stock modes take the eager fp32 export beside it.
    Raises PeerError where it cannot be installed, ends, is not ready in time, or answers the probe wrongly.
    """
    if mode not in peer.file.modes:
        raise PeerError(f"{peer.name}: unknown mode {mode!r}; expected one of {list(peer.file.modes)}")
    python = install_peer(peer)
    _prepare(peer, python, export)
    if not is_free(port):
        raise PeerError(f"{peer.file.title}: port {port} is taken by another process")
    log = peer.folder / f"serve-{mode}.log"
    with log.open("wb") as output:
        command = _new_command(python, peer, mode, export, port, settings)
        started = time.monotonic()
        with isolated(command, cwd=peer.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output) as process:
            try:
                url = f"http://{LOOPBACK}:{port}{peer.file.path}"
                _wait_until_right(peer, url, probe, process, log)
                seconds = time.monotonic() - started
                yield StartedTarget(f"{peer.name}-{mode}", url, pid=process.pid, seconds_to_ready=seconds)
            finally:
                _end_gently(process)


def _new_command(python: Path, peer: Peer, mode: str, export: Path, port: int, settings: ServerSettings) -> list[str]:
    flags = {
        "mode": mode,
        "export": export.resolve(),
        "host": LOOPBACK,
        "port": port,
        "workers": settings.workers,
        "threads": settings.threads,
        "batch-size": settings.batch_size,
        "batch-delay-ms": settings.batch_delay_ms,
    }
    words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    return [str(python), str(peer.folder / "serve.py"), *words]


def _prepare(peer: Peer, python: Path, export: Path) -> None:
    if peer.file.prepare:
        values = {"reference": export.resolve().parent / REFERENCE, "folder": peer.folder}
        file, *words = (word.format(**values) for word in peer.file.prepare)
        command = [str(python), str(peer.folder / file), *words]
        _run_step(peer, "prepare", command, peer.folder / "prepare.log")


def _wait_until_right(peer: Peer, url: str, probe: Request, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        answer = send_probe(url, probe)
        if answer is not None and answer.status_code == requests.codes.ok:
            if probe.is_right(answer.content):
                return
            raise PeerError(f"{peer.file.title}: a wrong answer: {answer.text[:300]}")
        if has_ended(process):
            raise PeerError(f"{peer.file.title} ended during start: {last_message(log)}; see {log}")
        if time.monotonic() > deadline:
            said = "no answer" if answer is None else f"{answer.status_code} {answer.text[:300]}"
            raise PeerError(f"{peer.file.title} was not ready in {READY_TIMEOUT_S:g} s: {said}; see {log}")
        time.sleep(POLL_S)


def send_probe(url: str, probe: Request) -> requests.Response | None:
    """Return none while nothing listens."""
    with suppress(requests.RequestException):
        return requests.post(url, data=probe.body, headers=dict(probe.headers), timeout=PROBE_TIMEOUT_S)
    return None


def _end_gently(process: "subprocess.Popen[bytes]") -> None:
    """Let it remove its sockets and shared memory itself; what is left afterwards is killed."""
    if has_ended(process):
        return
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: not session_members(process.pid), STOP_TIMEOUT_S, POLL_S)
