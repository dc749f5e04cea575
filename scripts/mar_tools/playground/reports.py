"""The report of a served model, as `inspect_archive.py` makes it of the archive when a browser first asks for it."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from threading import Lock

from mar_tools.command_line import ROOT
from mar_tools.playground.forwarding import NAME, Answer, refuse
from mar_tools.serving.torchserve_api import ServerError, TorchServeClient

REPORT = re.compile(rf"/playground/reports/({NAME})/({NAME})", re.ASCII)
# Its styles and pictures are within it; it runs no script.
POLICY_OF_REPORT = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)
MAKING_S = 120.0
Made = tuple[tuple[int, int], bytes]  # time and size of the archive; the page


class Reports:
    """Makes one report at a time, and keeps it until its archive changes. Safe to use from several threads."""

    def __init__(self, client: TorchServeClient, model_store: Path) -> None:
        self._client = client
        self._store = model_store
        self._made: dict[Path, Made] = {}
        self._lock = Lock()

    def answer(self, model: str, version: str) -> Answer:
        """Return the report of a served model as a page; an error where its archive is not in the model store."""
        try:
            named = str(self._client.describe(model, version)[0]["modelUrl"])
        except ServerError as error:
            return refuse(404, "ModelNotFoundError", str(error))
        archive = self._store / named
        if Path(named).name != named or not archive.is_file():
            return refuse(404, "NoReportError", f"expected an archive of the model store, got {named[:200]!r}")
        try:
            page = self._find(archive)
        except (subprocess.SubprocessError, OSError) as error:
            return refuse(500, "NoReportError", _last_words(error))
        return Answer(200, page, {"Content-Type": "text/html; charset=utf-8"}, POLICY_OF_REPORT)

    def _find(self, archive: Path) -> bytes:
        with self._lock:
            status = archive.stat()
            state = (status.st_mtime_ns, status.st_size)
            if archive not in self._made or self._made[archive][0] != state:
                self._made[archive] = (state, _make(archive))
            return self._made[archive][1]


def _make(archive: Path) -> bytes:
    """Run the command in a process of its own: it needs PyTorch, and this server does not."""
    with tempfile.TemporaryDirectory(prefix="vision-serving-") as folder:
        target = Path(folder) / "report.html"
        command = [sys.executable, str(ROOT / "scripts" / "inspect_archive.py"), str(archive), "--report", str(target)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=MAKING_S)
        return target.read_bytes()


def _last_words(error: Exception) -> str:
    said = str(getattr(error, "stderr", None) or error).strip()
    return said.splitlines()[-1] if said else type(error).__name__
