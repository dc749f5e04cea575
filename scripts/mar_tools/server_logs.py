"""What a server's logs say about a start that failed."""

import re
from pathlib import Path

NAMES = ("model_log.log", "ts_log.log", "console.log")
FAILURE = re.compile(r"\w(Error|Exception)\b.*: |Invalid configuration")
LOAD_FAILURES = {
    "model_log.log": re.compile(r"Failed to load model (\S+), exception (.*)"),  # a worker
    "ts_log.log": re.compile(r"Failed to load model: (\S+)()"),  # the frontend
}


class ServerLogs:
    """The logs in one folder, as far as they were written since `begin`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sizes: dict[str, int] = {}

    def begin(self) -> None:
        """Everything until now belongs to earlier starts."""
        self._folder.mkdir(exist_ok=True)
        logs = [self._folder / name for name in NAMES]
        self._sizes = {log.name: log.stat().st_size for log in logs if log.is_file()}

    def last_failure(self) -> str:
        """The last error, as the end of a message."""
        for name in NAMES:
            lines = [line for line in self._new_lines(name) if FAILURE.search(line)]
            if lines:
                return f"; logs/{name} says: {lines[-1].split(' - ')[-1].strip()[:300]}"
        return "; see logs/"

    def load_failure(self) -> str | None:
        """Which model cannot load, and why; None where none has failed."""
        for name, pattern in LOAD_FAILURES.items():
            for line in self._new_lines(name):
                found = pattern.search(line)
                if found:
                    return f"model {found[1]} cannot load: {found[2][:400] or 'see logs/' + name}"
        return None

    def _new_lines(self, name: str) -> list[str]:
        path = self._folder / name
        if not path.is_file():
            return []
        return path.read_bytes()[self._sizes.get(name, 0) :].decode(errors="replace").splitlines()
