"""Fuzzing that is guided by coverage (atheris): from the corpus onwards, for so long, and what it found."""

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from lab.hostile.attempts import MAX_S, REQUEST_FORMS
from lab.hostile.documents import DOCUMENTS
from lab.hostile.forms import SERVED_ALL_THE_SAME
from lab.hostile.pictures import FOREIGN, FORMATS, ODD, whole
from vision_serving.errors import MissingPackageError, how_to_install

TARGET = "lab.hostile.fuzz_target"
MAX_BYTES = 20_000
SLACK_S = 120.0  # for the start and the end of the process
KEPT_LINES = 30


@dataclass(frozen=True)
class Fuzzed:
    """edges: of our code and of Pillow's that were reached. failures: empty where nothing was found."""

    executions: int
    edges: int
    slowest_s: int
    failures: tuple[str, ...]


def fuzz(seconds: int, seed: int) -> Fuzzed:
    """Raises MissingPackageError where atheris is not installed. What fails is in base64 among the failures."""
    require_atheris()
    with tempfile.TemporaryDirectory(prefix="fuzzing-") as folder:
        corpus = Path(folder) / "corpus"
        write_corpus(corpus)
        command = [
            sys.executable, "-m", TARGET, str(corpus), f"-max_total_time={seconds}", f"-seed={seed + 1}",
            f"-max_len={MAX_BYTES}", f"-timeout={int(10 * MAX_S)}", "-print_final_stats=1", "-rss_limit_mb=4096",
            f"-artifact_prefix={folder}/",
        ]  # fmt: skip
        finished = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
            timeout=seconds + SLACK_S,
        )  # fmt: skip
    return read_output(finished.stderr, finished.returncode)


def require_atheris() -> None:
    """Raises MissingPackageError."""
    if find_spec("atheris") is None:
        raise MissingPackageError(f"fuzzing needs {how_to_install(ModuleNotFoundError(name='atheris'))}")


def write_corpus(folder: Path) -> None:
    """Write what the fuzzer begins with: a byte for the form, then the request."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [*map(whole, FORMATS), *(make() for make in ODD.values()), *(body for body, _ in FOREIGN.values())]
    documents = [document.body for document in DOCUMENTS.values()]
    headers = ["\0".join(entry.headers.values()).encode("latin-1", "replace") for entry in SERVED_ALL_THE_SAME.values()]
    form = b"a\0" + whole("PNG") + b"\0top_k\0" + b"3"
    bodies = ((0, pictures), (1, documents), (2, documents), (3, [form]), (4, headers))
    assert len(bodies) == len(REQUEST_FORMS)
    for kind, seeds in bodies:
        for number, body in enumerate(seeds):
            if len(body) < MAX_BYTES:
                (folder / f"{kind}-{number}").write_bytes(bytes((kind,)) + body)


def read_output(text: str, status: int) -> Fuzzed:
    """Read libFuzzer's output."""
    edges = [int(found) for found in re.findall(r"\bcov: (\d+)", text)]
    failure = ("\n".join(text.splitlines()[-KEPT_LINES:]),) if status != 0 else ()
    return Fuzzed(
        _statistic(text, "number_of_executed_units"),
        max(edges, default=0),
        _statistic(text, "slowest_unit_time_sec"),
        failure,
    )


def _statistic(text: str, name: str) -> int:
    found = re.search(rf"stat::{name}:\s*(\d+)", text)
    return int(found[1]) if found else 0
