"""The units of deploy/systemd for this checkout, and what a service tells systemd of itself."""

import os
import re
import socket
import stat
from pathlib import Path

from mar_tools.command_line import ROOT
from vision_serving.errors import ConfigError

UNITS = ROOT / "deploy" / "systemd"
PLACEHOLDER = re.compile(r"@\{(\w+)\}")
PLAIN = re.compile(r"[\w./+@-]+")  # what a unit takes without quotes
HOMES = (Path("/home"), Path("/root"), Path("/run/user"))  # that ProtectHome= hides


def render_units(python: Path, config: Path) -> dict[str, str]:
    """Return each unit by its name. Raises ConfigError where another user could not read what they name."""
    config = config.resolve()
    if not config.is_file():
        raise ConfigError(f"{config}: no such file; give --config with the server's config.properties")
    read = (python, python.resolve(), ROOT / "scripts" / "serve_models.py", config)
    for path in read:
        if not PLAIN.fullmatch(str(path)):
            raise ConfigError(f"{path}: expected letters, digits and any of ./+@_- in the path; move it")
        closed = closed_to_others(path)
        if closed is not None:
            raise ConfigError(f"{closed}: the service's own user cannot read {path}; chmod it, or move it to /srv")
    return fill_units(python, config, any(path.is_relative_to(home) for path in read for home in HOMES))


def fill_units(python: Path, config: Path, in_a_home: bool) -> dict[str, str]:
    """Return each unit by its name. in_a_home: what it reads stands where a service does not look otherwise."""
    values = {"python": python, "root": ROOT, "config": config, "home": "read-only" if in_a_home else "yes"}
    return {
        unit.name: PLACEHOLDER.sub(lambda found: str(values[found[1]]), unit.read_text(encoding="utf-8"))
        for unit in sorted(UNITS.glob("*.service"))
    }


def closed_to_others(path: Path) -> Path | None:
    """Return what keeps other users from a file: a folder that they cannot enter, or the file where it is private."""
    for folder in reversed(path.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None if path.stat().st_mode & stat.S_IROTH else path


def tell_manager(state: str) -> None:
    """Tell systemd, where it has started this process as `Type=notify`: lines as of sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.connect("\0" + address[1:] if address.startswith("@") else address)
            manager.sendall(state.encode())
