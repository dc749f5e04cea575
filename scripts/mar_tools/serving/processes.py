"""The processes of one server: found by its configuration and its temporary folder, whatever the shell's TMPDIR is.

Only processes and folders of this user count: others may look as they like. For root, those of whoever owns the
configuration or started the server count too.
"""

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from mar_tools.serving.start_record import read_start_record, record_path
from mar_tools.waiting import wait_until

FRONTEND = "org.pytorch.serve.ModelServer"
WORKER = "model_service_worker.py"
EXPORTER = "export_metrics.py"  # of this project's commands: shows metrics beside the server
DRAIN_NAME = "drain"  # of the file in the temporary folder that exists while the server drains
PREFIX = "vision-serving-"  # of the temporary folders
TEMPORARY_FLAG = "-Djava.io.tmpdir="
POLL_S = 0.25
END_TIMEOUT_S = 5.0


def find_temporary(config: Path) -> Path | None:
    """Return the folder of the server that runs, or ran last. None where this project started none."""
    recorded = read_start_record(config).temporary
    frontend = None if recorded else find_frontend(config)
    if frontend is not None:  # the record is lost
        flags = [part for part in frontend.cmdline() if part.startswith(TEMPORARY_FLAG) and PREFIX in part]
        recorded = flags[-1].removeprefix(TEMPORARY_FLAG) if flags else ""
    return Path(recorded) if recorded else None


def find_frontend(config: Path) -> psutil.Process | None:
    """Return the running frontend, None when there is none: by the folder that its start noted, or by its settings."""
    recorded = read_start_record(config).temporary
    flag = f"{TEMPORARY_FLAG}{recorded}"
    for process, command in _own_processes(config):
        if FRONTEND in command and ((recorded and flag in command) or _reads(process, command, config)):
            return process
    return None


def find_workers(config: Path, temporary: Path) -> list[psutil.Process]:
    """Return the workers, whether their frontend lives or not: each was given a socket in the folder."""
    return _find_given(WORKER, config, temporary)


def find_exporters(config: Path, temporary: Path) -> list[psutil.Process]:
    """Return what shows the server's metrics: it was given a folder in that of the server."""
    return _find_given(EXPORTER, config, temporary)


def _find_given(script: str, config: Path, temporary: Path) -> list[psutil.Process]:
    return [
        process
        for process, command in _own_processes(config)
        if any(part.endswith(script) for part in command) and any(part.startswith(f"{temporary}/") for part in command)
    ]


def remove_temporary(config: Path, temporary: Path) -> bool:
    """Remove the folder and the record of the start. False: it is gone, or another user has one of that name."""
    own = False
    with suppress(FileNotFoundError):
        found = temporary.lstat()
        own = stat.S_ISDIR(found.st_mode) and found.st_uid in _own_users(config)
    if own:
        shutil.rmtree(temporary, ignore_errors=True)  # a worker that ends removes its socket meanwhile
    record_path(config).unlink(missing_ok=True)
    return own


def _own_users(config: Path) -> set[int]:
    places = (config, record_path(config)) if os.geteuid() == 0 else ()
    return {os.geteuid(), *(place.stat().st_uid for place in places if place.exists())}


def _own_processes(config: Path) -> Iterator[tuple[psutil.Process, list[str]]]:
    users = _own_users(config)
    for process in psutil.process_iter(["cmdline", "uids"]):
        if process.info["cmdline"] and process.info["uids"].effective in users:
            yield process, process.info["cmdline"]


def _reads(process: psutil.Process, command: Sequence[str], config: Path) -> bool:
    """Return whether its settings are this file, and not one of the same path in a container of its own. On Linux."""
    try:
        named = Path(process.cwd(), command[command.index("-f") + 1])
        return os.path.samefile(f"/proc/{process.pid}/root{named}", config)
    except (ValueError, IndexError, OSError, psutil.Error):  # without settings; ended; not this system
        return False


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
    wait_until(lambda: not any(map(runs, processes)), timeout_s, POLL_S)
    return [process for process in processes if runs(process)]


def runs(process: psutil.Process) -> bool:
    """Return whether it has not ended."""
    try:
        # The first thread of a killed process may be a zombie while others still hold its ports.
        return bool(process.is_running() and (process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1))
    except psutil.NoSuchProcess:
        return False
