"""E6 and E7: other users of the machine, and a machine that lacks something: an operator's commands all the same."""

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lab.reliability.episodes import FaultRow
from lab.testbed.findings import Episode
from lab.testbed.world import World
from mar_tools.command_line import ROOT
from mar_tools.load_testing.processes import find_processes
from mar_tools.serving.config_file import with_values
from mar_tools.serving.ports import LOOPBACK, is_free
from mar_tools.serving.processes import wait_until_ended
from mar_tools.serving.server import KEY_FILE, Server
from vision_serving.worker.server_settings import STATE_KEY

SCRIPT = ROOT / "scripts" / "serve_models.py"
COMMAND_S, ENDED_S = 60.0, 15.0
NOBODY = 65534  # another user, where this one may start processes of others
LOOK_ALIKES = (
    ("model_service_worker.py", "--sock-name", "{temporary}/.ts.sock.9000"),
    ("java", "-Djava.io.tmpdir={temporary}", "org.pytorch.serve.ModelServer"),
)


class Operator:
    """Runs serve_models.py on a server; each command must do what it is for, or say why in one line."""

    def __init__(self, server: Server, episode: Episode) -> None:
        self._server, self._episode = server, episode

    def run(self, name: str, action: str, *wrapper: str, folder: Path | None = None) -> bool:
        """Return whether it happened. wrapper: what it runs under. folder: TMPDIR."""
        command = [*wrapper, sys.executable, str(SCRIPT), action, "--config", str(self._server.config)]
        environment = os.environ | ({"TMPDIR": str(folder)} if folder else {})
        finished = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, env=environment)
        errors = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
        told = finished.returncode == 0 or (len(errors) == 1 and "Traceback" not in finished.stderr)
        self._episode.figures[f"{name}_status"] = finished.returncode
        self._episode.failures += [f"{name}: {line}" for line in errors]
        self._episode.require(told, f"{name}: {finished.returncode}, {finished.stderr[-500:].strip()}")
        return finished.returncode == 0

    def stop(self, name: str, folder: Path | None = None) -> None:
        """Stop it, and require that it is gone: nobody listens any more."""
        self.run(name, "stop", folder=folder)
        taken = sum(not is_free(port) for port in self._server.ports().values())
        self._episode.bound(f"{name}_ports_taken", taken, 0)

    def start(self, name: str, *wrapper: str, folder: Path | None = None) -> None:
        """Start it, or be told why not."""
        self.run(name, "start", *wrapper, folder=folder)


def meet_other_users(world: World, _: random.Random) -> Episode:
    """Meet processes, a folder and a port of others that look like this server's."""
    episode = Episode(patience=world.patience, figures={"as_another_user": int(os.geteuid() == 0)})
    operator, temporary = Operator(world.server, episode), world.server.temporary
    with look_alikes(temporary) as others:
        operator.run("status_beside_look_alikes", "status")
        operator.stop("stop_beside_look_alikes")
        operator.start("start_beside_look_alikes")
        lose_the_folder(world, operator, episode)
        with socket.create_server((LOOPBACK, world.server.ports()["inference_address"])):
            started = operator.run("start_on_a_taken_port", "start")
        episode.require(not started, "a start on a port that another process has says that it happened")
        episode.bound("look_alikes_ended", sum(other.poll() is not None for other in others), 0)
    operator.start("start_afterwards")
    episode.require(world.is_ready(), "the server is not ready afterwards")
    return episode


def lose_the_folder(world: World, operator: Operator, episode: Episode) -> None:
    """Kill the server, and let another user have the folder that its start noted: no command may touch that."""
    temporary, family = world.server.temporary, find_processes([world.frontend().pid])
    family[0].kill()
    left = wait_until_ended(family, ENDED_S)
    episode.require(not left, f"{len(left)} processes of a killed server did not end")
    with squatted(temporary) as kept:
        operator.start("start_beside_a_squatted_folder")
        operator.stop("stop_beside_a_squatted_folder")
        taken = os.geteuid() == 0 and not kept.exists()  # a folder of one's own may go
        episode.require(not taken, "the folder of another user, or what it holds, was removed")


@contextmanager
def look_alikes(temporary: Path) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Run processes of another user with the command lines of a worker and of a frontend."""
    user = NOBODY if os.geteuid() == 0 else None
    others = [
        subprocess.Popen(
            ["python3", "-c", "import time; time.sleep(600)", *(word.format(temporary=temporary) for word in words)],
            user=user,
            cwd="/",
        )
        for words in LOOK_ALIKES
    ]
    try:
        yield others
    finally:
        for other in others:
            other.kill()
            other.wait()


@contextmanager
def squatted(folder: Path) -> Iterator[Path]:
    """Let another user have the folder of this name, in place of what there was, and yield a file in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    kept = folder / "kept"
    kept.touch()
    if os.geteuid() == 0:
        for path in (folder, kept):
            os.chown(path, NOBODY, NOBODY)
    try:
        yield kept
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def lack_what_is_needed(world: World, _: random.Random) -> Episode:
    """Take the temporary folder, the disk and the descriptors away, one after the other."""
    episode = Episode(patience=world.patience)
    operator = Operator(world.server, episode)
    with tempfile.TemporaryDirectory(prefix="other-") as name:
        other, full = Path(name), Path(name) / "full"
        operator.run("status_with_another_tmpdir", "status", folder=other)
        operator.stop("stop_with_another_tmpdir", folder=other)
        operator.start("start_with_a_missing_tmpdir", folder=other / "missing")
        operator.stop("stop_with_a_missing_tmpdir", folder=other / "missing")
        with full_disk(full) as is_full:
            episode.figures["disk_was_full"] = int(is_full)
            operator.start("start_on_a_full_disk", folder=full)
            operator.stop("stop_on_a_full_disk", folder=full)
        operator.start("start_with_256_descriptors", "prlimit", "--nofile=256:256")
        operator.stop("stop_after_256_descriptors")
    serve_what_is_read_only(world.server, episode)
    operator.start("start_afterwards")
    episode.require(world.is_ready(), "the server is not ready afterwards")
    return episode


def serve_what_is_read_only(server: Server, episode: Episode) -> None:
    """Serve a copy that nobody can write: first as it is, then with a folder elsewhere for what a server writes."""
    with tempfile.TemporaryDirectory(prefix="read-only-") as name:
        copy, elsewhere = Path(name) / "copy", Path(name) / "elsewhere"
        shutil.copytree(server.folder, copy, ignore=shutil.ignore_patterns("logs", KEY_FILE))
        elsewhere.mkdir(mode=0o700)
        config = copy / server.config.name
        with read_only(copy) as episode.figures["was_read_only"]:
            if episode.figures["was_read_only"]:
                started = Operator(Server(config), episode).run("start_of_what_is_read_only", "start")
                episode.require(not started, "a start that can write nowhere says that it happened")
        config.write_text(with_values(config.read_text(), {STATE_KEY: str(elsewhere)}))
        operator = Operator(Server(config), episode)
        with read_only(copy):
            for action in ("start", "status"):
                happened = operator.run(f"{action}_with_a_folder_elsewhere", action)
                episode.require(happened, f"no {action} with a folder elsewhere")
            operator.stop("stop_with_a_folder_elsewhere")


@contextmanager
def read_only(folder: Path) -> Iterator[int]:
    """Mount it on itself, read-only. 0 where this user may not, or this machine cannot."""
    bound = subprocess.run(["mount", "--bind", str(folder), str(folder)], capture_output=True).returncode == 0
    try:
        changed = bound and subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], capture_output=True)
        yield int(changed is not False and changed.returncode == 0)
    finally:
        if bound:
            subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def full_disk(folder: Path) -> Iterator[bool]:
    """Mount a disk of 64 KiB, and fill it. False where this user may not, or this machine cannot."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)], capture_output=True)
    try:
        if mounted.returncode == 0:
            with suppress(OSError):
                (folder / "filling").write_bytes(bytes(1 << 20))
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", str(folder)], check=True)


COMMANDS_SAY_WHY = "`start`, `stop` and `status` do what they are for, or say in one line why not"
ROWS = (
    FaultRow(
        "E6",
        "of another user: processes that look like a frontend and a worker, the folder of a killed server, its port",
        f"{COMMANDS_SAY_WHY}; nothing of others is ended or removed; the server is ready afterwards",
        meet_other_users,
        once=True,
    ),
    FaultRow(
        "E7",
        "another, a missing and a full TMPDIR, 256 open files, and a checkout that nobody can write",
        f"{COMMANDS_SAY_WHY}; a running server is found and stopped; the server is ready afterwards",
        lack_what_is_needed,
        once=True,
    ),
)
