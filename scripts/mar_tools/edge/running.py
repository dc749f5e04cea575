"""The model of a folder, run by the format's own runtime, as a backend and as its user would."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson
import torch
from torch import Tensor

from mar_tools.child_processes import isolated
from mar_tools.edge.worker import receive, send
from vision_serving.errors import BackendError, last_line

WORKER = Path(__file__).with_name("worker.py")
PREDICT_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class EdgeModel:
    """infer: as of a backend. predict: the folder's own programs on a picture. runtime: its name and version."""

    infer: Callable[[Tensor], dict[str, Tensor]]
    predict: Callable[[Path], dict[str, Any]]
    runtime: str


@contextmanager
def open_process(folder: Path, python: str) -> Iterator[EdgeModel]:
    """Yield the model of a folder in a process of an environment's interpreter. Raises BackendError where it fails."""
    with (
        tempfile.TemporaryFile() as complaints,
        isolated(
            [python, "-I", "-B", str(WORKER), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        questions, answers = process.stdin, process.stdout

        def infer(pixels: Tensor) -> dict[str, Tensor]:
            try:
                send(questions, {"pixels": pixels.numpy()})
                outputs = receive(answers)
            except OSError:
                outputs = None
            if outputs is None:
                raise BackendError(f"{folder.name}: the runtime ended: {read_end(complaints)}")
            return {name: torch.from_numpy(outputs[name]) for name in outputs}

        version = answers.readline().decode().strip()
        if not version:
            raise BackendError(f"{folder.name}: the runtime cannot load the model: {read_end(complaints)}")
        yield EdgeModel(infer, lambda picture: predict_picture(folder, python, picture), version)


def predict_picture(folder: Path, python: str, picture: Path) -> dict[str, Any]:
    """Run the folder's predict.py as the README says. Raises BackendError where it fails."""
    command = [python, "-B", str(folder / "predict.py"), str(picture)]
    done = subprocess.run(command, capture_output=True, timeout=PREDICT_TIMEOUT_S)
    if done.returncode:
        reason = last_line(RuntimeError(done.stderr.decode(errors="replace")))
        raise BackendError(f"{folder.name}: predict.py failed: {reason}")
    answer: dict[str, Any] = orjson.loads(done.stdout.splitlines()[-1])
    return answer


def read_end(complaints: IO[bytes]) -> str:
    """Return the last line that a process wrote on standard error."""
    complaints.seek(0)
    return last_line(RuntimeError(complaints.read().decode(errors="replace")))
