"""LiteRT's flatbuffer, for Android and boards: one picture at a time, converted in an environment of its own."""

import subprocess
import tempfile
import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from mar_tools.command_line import Announce
from mar_tools.edge.environments import make_environment
from mar_tools.edge.formats.base import CARRIED_PYTHON, Written, require_fixed_size
from mar_tools.edge.running import EdgeModel, open_process
from mar_tools.exporting.exporters.base import ExportJob, require_python_network
from vision_serving.errors import BackendError, foreign_code, last_line

PRECISIONS = ("fp32", "int8")
REQUIREMENTS = "litert"
CARRIED = {**CARRIED_PYTHON, "run_litert.py": "runtime.py"}
ARTIFACT = "model.tflite"
CONVERTER = Path(__file__).parents[1] / "convert_to_litert.py"


def write(job: ExportJob, folder: Path, announce: Announce) -> Written:
    """Convert in the format's own environment. int8: of the weights, where the activations' ranges need no pictures.

    Ranges of activations that are fixed beforehand cost the digits classifier 6 % of its answers.
    """
    require_python_network(job)
    require_fixed_size(job, "litert")
    python = make_environment(REQUIREMENTS, announce)
    announce("convert")

    def explain(error: BaseException) -> BackendError:
        return BackendError(f"LiteRT cannot convert this model: {last_line(error)[:200]}; use --format ort")

    with tempfile.TemporaryDirectory() as temporary:
        with foreign_code(explain, (OSError,)), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(job.graph, (job.pixels[:1],), strict=True)
            torch.export.save(program, Path(temporary) / "program.pt2")
        names = [str(Path(temporary) / "program.pt2"), str(folder / ARTIFACT), job.precision]
        done = subprocess.run([str(python), "-I", str(CONVERTER), *names], capture_output=True, text=True)
    if done.returncode:
        raise explain(RuntimeError(done.stderr))
    quantization: dict[str, Any] = {"scheme": "dynamic"} if job.precision == "int8" else {}
    return Written(ARTIFACT, 1, quantization)


def open_runtime(folder: Path, announce: Announce) -> AbstractContextManager[EdgeModel]:
    return open_process(folder, str(make_environment(REQUIREMENTS, announce)))
