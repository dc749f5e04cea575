"""The processes of one server, and its temporary folder, by which they are known."""

import hashlib
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from mar_tools.waiting import wait_until

FRONTEND = "org.pytorch.serve.ModelServer"
WORKER = "model_service_worker.py"
POLL_S = 0.25
END_TIMEOUT_S = 5.0


def temporary_folder(config: Path) -> Path:
    """Return a short folder, because TorchServe puts Unix sockets there.

    By the file, so that two checkouts never meet.
    """
    digest = hashlib.sha256(str(config.resolve()).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"vision-serving-{digest}"


def drain_file(config: Path) -> Path:
    """Return the file that exists while the server drains."""
    return temporary_folder(config) / "drain"


def find_frontend(temporary: Path) -> psutil.Process | None:
    """Return the running frontend, None when there is none, or the process of its number is another's by now."""
    try:
        process = psutil.Process(int((temporary / ".model_server.pid").read_text()))
        command = process.cmdline()
    except (FileNotFoundError, PermissionError, ValueError, psutil.Error):  # not permitted: another user's
        return None
    return process if FRONTEND in command and f"-Djava.io.tmpdir={temporary}" in command else None


def find_workers(temporary: Path) -> list[psutil.Process]:
    """Return the workers, whether their frontend lives or not: each was given a socket in the folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if any(part.endswith(WORKER) for part in command) and any(part.startswith(f"{temporary}/") for part in command):
            found.append(process)
    return found


def end_processes(processes: Sequence[psutil.Process]) -> None:
    """End them by SIGTERM, and what has not ended by then by SIGKILL, which ends one that is halted too."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    for survivor in wait_until_ended(processes, END_TIMEOUT_S):
        with suppress(psutil.NoSuchProcess):
            survivor.kill()
    wait_until_ended(processes, END_TIMEOUT_S)


def wait_until_ended(processes: Sequence[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Return those that still run at the end. A zombie has ended, though the init of a container may never reap it."""
    wait_until(lambda: not any(map(_runs, processes)), timeout_s, POLL_S)
    return [process for process in processes if _runs(process)]


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
