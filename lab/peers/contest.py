"""Other servers beside our own: started with the same model, asked the same pictures, checked by the same answers."""

import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from lab.peers.peers import Peer, PeerError, ServerSettings, StartedTarget, find_peers, run_peer, send_probe
from mar_tools.child_processes import isolated, python_command
from mar_tools.exporting.export_folders import REFERENCE
from mar_tools.load_testing.answers import Expected, expect_answers, expect_library_boxes
from mar_tools.load_testing.measurement import Measurement
from mar_tools.load_testing.processes import find_processes
from mar_tools.load_testing.targets import Request, Target, prepare_requests
from mar_tools.load_testing.trials import LoadTrial, closed_trial
from mar_tools.serving.ports import find_free_ports
from mar_tools.waiting import wait_until
from vision_serving.config import read_handler_config
from vision_serving.cores import ThreadPlan, plan_threads, usable_cores
from vision_serving.errors import ConfigError

ARTIFACT = "artifact"  # the mode that serves our export with our code; all others compute eager fp32
EAGER_BATCH = 8
WAKE_TIMEOUT_S = 30.0
POLL_S = 0.1
EAGER_ON_GPU = ServerSettings(workers=4, threads=1, batch_size=32, batch_delay_ms=5)


@dataclass(frozen=True)
class Contestant:
    """A peer in one of its modes that runs, and what it is asked."""

    target: StartedTarget
    requests: list[Request]
    settings: ServerSettings
    halts: bool = False

    def new_trial(self, connections: int, duration_s: float) -> LoadTrial:
        """Return a closed loop, during which it is awake."""
        trial = closed_trial(self.target, self.requests, connections, duration_s)

        def measure(number: int) -> Measurement:
            with awake(self):
                return trial.measure(number)

        return replace(trial, measure=measure)

    def as_document(self) -> dict[str, Any]:
        return {**asdict(self.settings), "seconds_to_ready": round(self.target.seconds_to_ready, 2)}


def choose_peers(names: Sequence[str], peers: Mapping[str, Peer]) -> list[tuple[Peer, str]]:
    """Choose peers with their modes: `litserve` is all of its modes, `litserve-artifact` is one. Raises ConfigError."""
    by_mode = {f"{name}-{mode}": (peer, mode) for name, peer in peers.items() for mode in peer.file.modes}
    chosen: list[tuple[Peer, str]] = []
    for name in names:
        found = [by_mode[name]] if name in by_mode else [pair for pair in by_mode.values() if pair[0].name == name]
        if not found:
            raise ConfigError(f"unknown server {name!r}; expected one of {[*peers, *by_mode]}")
        chosen += [pair for pair in found if pair not in chosen]
    return chosen


@contextmanager
def start_contestants(
    names: Sequence[str],
    export: Path,
    images: Sequence[bytes],
    settings: ServerSettings,
    announce: Callable[[str], None],
) -> Iterator[tuple[list[Contestant], dict[str, str]]]:
    """Start all that start and answer rightly, and say why the others do not; stop them at the end.

    export: the folder of the served artifact, with the export of eager fp32 beside it. settings: of those that serve
    the artifact, as our own server has them. A network in eager mode gets what is its best: all cores in one worker, or
    on a GPU several workers with large batches. Those that are busy when idle are halted until they are `awake`.
    """
    on_gpu = read_handler_config(export / "model-config.yaml").device_type == "cuda"
    eager_settings = EAGER_ON_GPU if on_gpu else ServerSettings(1, usable_cores(), EAGER_BATCH, batch_delay_ms=5)
    pairs = choose_peers(names, find_peers())
    announce("computing the expected answers")
    threads = plan_threads(usable_cores(), settings.workers, settings.threads)
    expected = {eager: expect(export, images, eager, threads) for eager in {mode != ARTIFACT for _, mode in pairs}}
    started: list[Contestant] = []
    refused: dict[str, str] = {}
    with ExitStack() as stack:
        for peer, mode in pairs:
            announce(f"starting {peer.name} ({mode})")
            requests = prepare_requests(images, peer.file.encoding, expected[mode != ARTIFACT])
            own = settings if mode == ARTIFACT else eager_settings
            try:
                target = stack.enter_context(run_peer(peer, mode, export, find_free_ports(1)[0], own, requests[0]))
                if peer.file.busy_when_idle:
                    stack.callback(signal_tree, target.pid, signal.SIGCONT)  # one that is halted cannot end
                    signal_tree(target.pid, signal.SIGSTOP)
                started.append(Contestant(target, requests, own, halts=peer.file.busy_when_idle))
            except PeerError as error:
                refused[f"{peer.name}-{mode}"] = str(error)
        yield started, refused


@contextmanager
def awake(contestant: Contestant) -> Iterator[None]:
    """Let one run that is halted otherwise: LitServe and Ray take half a core from the others while they wait."""
    if not contestant.halts:
        yield
        return
    target = contestant.target
    signal_tree(target.pid, signal.SIGCONT)
    try:
        wait_for_answer(target, contestant.requests[0])
        yield
    finally:
        signal_tree(target.pid, signal.SIGSTOP)


@contextmanager
def start_trivial_server() -> Iterator[Target]:
    """Start the trivial server in a process of its own, which is gone at the end."""
    command = python_command("lab.peers.trivial_server")
    with isolated(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield Target("bundled client", f"http://127.0.0.1:{port}/predictions/none", pid=process.pid)


def signal_tree(root: int, number: signal.Signals) -> None:
    """Signal a process and all that descend from it, however they were started."""
    for process in find_processes([root]):
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def wait_for_answer(target: Target, request: Request) -> None:
    """Wait until a server that was halted answers again, or WAKE_TIMEOUT_S: what follows shows that it does not."""

    def answers() -> bool:
        answer = send_probe(target.url, request)
        return answer is not None and answer.ok

    wait_until(answers, WAKE_TIMEOUT_S, POLL_S)


def expect(export: Path, images: Sequence[bytes], eager: bool, threads: ThreadPlan | None = None) -> list[Expected]:
    """Return the answers of the export in so many threads, or of the eager fp32 network beside it."""
    reference = export.parent / REFERENCE
    if not eager:
        return expect_answers(export, images, threads)
    detects = read_handler_config(reference / "model-config.yaml").task == "detection"
    return expect_library_boxes(reference, images) if detects else expect_answers(reference, images)
