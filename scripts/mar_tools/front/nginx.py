"""Debian's nginx with its modules for JavaScript and streams: where it is, and how it is run by an ordinary user."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mar_tools.command_line import ROOT
from vision_serving.errors import VisionServingError

FETCHED = ROOT / ".nginx"  # where deploy/nginx/fetch.sh unpacks it
JS_MODULE, STREAM_MODULE = "ngx_http_js_module.so", "ngx_stream_module.so"
SYSTEM_PATHS = ("/usr/sbin", "/usr/local/sbin")  # often not on the PATH of an ordinary user
HOW_TO_INSTALL = "apt install nginx libnginx-mod-http-js libnginx-mod-stream; without root: bash deploy/nginx/fetch.sh"
COMMAND_TIMEOUT_S = 30.0


class NginxError(VisionServingError):
    """nginx is missing, refuses its configuration, or does not do as it was told."""


@dataclass(frozen=True)
class Nginx:
    """An nginx that can run our configuration. library_path: of the shared libraries that came with it."""

    binary: Path
    modules: Path
    library_path: str = ""

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, **({"LD_LIBRARY_PATH": self.library_path} if self.library_path else {})}

    def run(self, *arguments: str) -> str:
        """Return what it printed. Raises NginxError with what it says is wrong."""
        finished = subprocess.run(
            [str(self.binary), *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
        )
        if finished.returncode != 0:
            raise NginxError(f"nginx: {first_failure(finished.stderr)}")
        return finished.stderr

    def version(self) -> str:
        return self.run("-v").strip().rpartition("/")[2]


def find_nginx() -> Nginx:
    """Return the machine's own, or the one that fetch.sh unpacked. Raises NginxError with how to install it."""
    lacking = []
    for binary, root in _candidates():
        modules = root / _modules_folder(binary).relative_to("/")
        missing = [name for name in (JS_MODULE, STREAM_MODULE) if not (modules / name).is_file()]
        if not missing:
            libraries = ":".join(map(str, sorted(root.glob("**/*-linux-gnu")))) if root == FETCHED else ""
            return Nginx(binary, modules, libraries)
        lacking.append(f"{binary} has no {' and no '.join(missing)}")
    found = lacking[0] if lacking else "nginx is not installed"
    raise NginxError(f"{found}; {HOW_TO_INSTALL}")


def _candidates() -> Iterator[tuple[Path, Path]]:
    """Yield programs, and the folders that are the root of their files."""
    installed = shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", ""), *SYSTEM_PATHS)))
    if installed:
        yield Path(installed), Path("/")
    fetched = FETCHED / "usr" / "sbin" / "nginx"
    if fetched.is_file():
        yield fetched, FETCHED


def _modules_folder(binary: Path) -> Path:
    configured = Nginx(binary, Path()).run("-V")
    found = re.search(r"--modules-path=(\S+)", configured)
    return Path(found[1]) if found else Path("/usr/lib/nginx/modules")


def first_failure(text: str) -> str:
    """Return the line of nginx's output that says why, without its date and process."""
    lines = [line for line in text.splitlines() if "[emerg]" in line or "[alert]" in line] or text.splitlines()[-1:]
    return lines[0].rpartition("[emerg] ")[2].strip() if lines else "it failed, and did not say why"
