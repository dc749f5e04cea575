"""nginx's master process: when it takes signals, and when it has followed one."""

from pathlib import Path

import psutil


def is_beginning(conf: Path) -> bool:
    """Return whether an nginx with this configuration has begun. It then renames itself, and has written its number."""
    return any(str(conf) in (process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))


def has_workers(master: psutil.Process) -> bool:
    """Return whether it has, or has ended. Before its first worker, a signal is lost or ends it."""
    try:
        return bool(master.children())
    except psutil.NoSuchProcess:
        return True


def replaced(earlier: set[psutil.Process], master: psutil.Process) -> bool:
    """Return whether other workers have come, and the earlier ones take no more connections."""
    now = set(master.children())
    return bool(now - earlier) and all(map(_shuts_down, now & earlier))


def _shuts_down(worker: psutil.Process) -> bool:
    try:
        return "shutting down" in " ".join(worker.cmdline())
    except psutil.NoSuchProcess:
        return True
