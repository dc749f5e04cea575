"""What a server's logs say about a start that failed, or a model that cannot load."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from vision_serving.errors import ConfigError

LOGS_KEY, FORMS = "vision_logs", ("text", "json")  # of config.properties; TorchServe ignores it, log4j2.xml does not
STDOUT_OPTION = "-Dvision_stdout=info"  # log4j2.xml: what models print goes to standard output too
JAVA_OPTIONS = "JDK_JAVA_OPTIONS"  # of the environment, which Java reads
NAMES = ("model_log.log", "ts_log.log", "console.log")
FAILURE = re.compile(r"\w(Error|Exception)\b.*: |Invalid configuration")
WORKER_LINE = re.compile(r" W-\d+-(\S+)-std(?:out|err) \S+ - (.*)")  # the model with its version, and what it said
LOAD_FAILURE = re.compile(r"(?:Failed to load|Load) model \S+(?: c\w+ OOM)?, exception (.*)")
DIED = "Backend worker process died."
PYTHON_ERROR = re.compile(r"[\w.]*(Error|Exception|Exit|Interrupt)\b")
REFUSED = "Failed to load model: "  # by the frontend, which then names the archive
MAX_REASON_CHARS = 400


def log_form(values: Mapping[str, str], default: str = "text") -> str:
    """Return "text" or "json". Raises ConfigError for all else in `vision_logs`."""
    form = values.get(LOGS_KEY, default).strip()
    if form not in FORMS:
        raise ConfigError(f"config.properties: {LOGS_KEY}: expected one of {list(FORMS)}, got {form[:80]!r}")
    return form


def log_options(values: Mapping[str, str], to_stdout: bool = False) -> dict[str, str]:
    """Return the variable of the environment by which a frontend writes its logs in the form of the settings.

    to_stdout: to its standard output too, and in JSON unless the settings say otherwise.
    """
    options = [STDOUT_OPTION] if to_stdout else []
    if log_form(values, "json" if to_stdout else "text") == "json":
        options.append(f"-D{LOGS_KEY}=json")
    return {JAVA_OPTIONS: " ".join([os.environ.get(JAVA_OPTIONS, ""), *options]).strip()} if options else {}


class ServerLogs:
    """The logs in one folder, without what earlier starts wrote: `sizes` bytes of each, by name."""

    def __init__(self, folder: Path, sizes: Mapping[str, int] | None = None) -> None:
        self._folder = folder
        self._sizes = sizes or {}

    def measure(self) -> dict[str, int]:
        """Return the sizes now."""
        logs = [self._folder / name for name in NAMES]
        return {log.name: log.stat().st_size for log in logs if log.is_file()}

    def last_failure(self) -> str:
        """Return the last error, as the end of a message."""
        for name in NAMES:
            lines = [line for line in self._new_lines(name) if FAILURE.search(line)]
            if lines:
                return f"; logs/{name} says: {lines[-1].split(' - ')[-1].strip()[:300]}"
        return "; see logs/"

    def load_failure(self, model: str, version: str) -> str | None:
        """Return why a worker of it could not load it, the last time; None where none has failed."""
        reason, died, explained = None, False, False
        for line in self._new_lines("model_log.log"):
            worker = WORKER_LINE.search(line)
            if worker is None or worker[1] != f"{model}_{version}":
                continue
            failure = LOAD_FAILURE.search(worker[2])
            if failure:
                reason, explained = failure[1], True
            elif DIED in worker[2]:
                died = True
            elif died and PYTHON_ERROR.match(worker[2]):  # the last line of a traceback
                reason = reason if explained else worker[2]
                died = explained = False
        return None if reason is None else reason[:MAX_REASON_CHARS]

    def refusal(self, archive: str) -> str | None:
        """Return why the frontend did not take an archive; None where the log has no word of it."""
        lines = self._new_lines("ts_log.log")
        for number, line in enumerate(lines):
            if REFUSED in line and line.rstrip().endswith(f"/{archive}"):
                return (lines[number + 1 : number + 2] or ["see logs/ts_log.log"])[0].strip()[:MAX_REASON_CHARS]
        return None

    def _new_lines(self, name: str) -> list[str]:
        path = self._folder / name
        if not path.is_file():
            return []
        content, before = path.read_bytes(), self._sizes.get(name, 0)
        # A log that is shorter than it was has begun anew.
        lines = content[before if before <= len(content) else 0 :].decode(errors="replace").splitlines()
        return [text for line in lines for text in _as_text(line)]


def _as_text(line: str) -> list[str]:
    """Return the lines of text that stand for an entry in JSON; another line as it is."""
    try:
        entry = json.loads(line) if line.startswith('{"time":"') else {}
    except json.JSONDecodeError:  # cut off, where a server was killed
        entry = {}
    if "logger" not in entry:
        return [line]
    first = "{time} [{level}] {thread} {logger} - {message}".format(**entry)
    return [first, *entry["exception"].splitlines()]
