"""What a format needs and this environment cannot have: kept in a cache folder, and made where it is missing."""

import hashlib
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from mar_tools.command_line import ROOT, Announce
from mar_tools.locking import locked
from vision_serving.errors import BackendError, last_line

READY = "ready"


def find_cache() -> Path:
    """Return the folder that is kept between calls: below XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vision-serving" / "edge"


def run_client(*command: str) -> None:
    """Run npm or pip. Raises BackendError with its last words where it fails or is missing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise BackendError(f"{command[0]} is missing: apt install {command[0]}") from error
    if done.returncode:
        raise BackendError(f"`{' '.join(command[:2])}` failed: {last_line(RuntimeError(done.stderr))}")


def locate_environment(name: str) -> Path:
    """Return where the environment of requirements/NAME.txt is: another one for other pins or another Python."""
    pins = (ROOT / "requirements" / f"{name}.txt").read_bytes()
    key = hashlib.sha256(pins + sys.version.encode() + sys.prefix.encode()).hexdigest()[:12]
    return find_cache() / f"{name}-{key}"


def find_python(name: str) -> Path | None:
    """Return the interpreter of the environment, None where it has not been made."""
    folder = locate_environment(name)
    return folder / "bin" / "python" if (folder / READY).is_file() else None


def make_environment(name: str, announce: Announce) -> Path:
    """Make the environment where it is missing, and return its interpreter.

    It sees this environment's packages too, behind its own: PyTorch is not installed twice, and pip changes nothing
    outside of the new folder.
    """
    python = find_python(name)
    if python is not None:
        return python
    folder = locate_environment(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock"), BackendError(f"{folder}: another export makes it; wait until it has")):
        announce(f"install requirements/{name}.txt into {folder}")
        return fill_environment(folder, ROOT / "requirements" / f"{name}.txt")


def fill_environment(folder: Path, pins: Path) -> Path:
    """Make the environment of a file of requirements, and return its interpreter."""
    run_client(sys.executable, "-m", "venv", "--clear", str(folder))
    python = folder / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (folder / "lib" / version / "site-packages" / "behind.pth").write_text(
        sysconfig.get_path("purelib") + "\n", "utf-8"
    )
    run_client(str(python), "-m", "pip", "install", "--quiet", "-r", str(pins))
    (folder / READY).touch()
    return python
