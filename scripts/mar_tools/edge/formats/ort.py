"""ONNX Runtime's own format, for phones and boards: loaded without a parser, and by builds with fewer operators."""

import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

from mar_tools.command_line import Announce
from mar_tools.edge.formats.base import CARRIED_PYTHON, Written
from mar_tools.edge.formats.onnx_weights import export_onnx_file
from mar_tools.edge.running import EdgeModel, open_process
from mar_tools.exporting.exporters.base import ExportJob
from vision_serving.errors import BackendError, last_line

PRECISIONS = ("fp32", "int8")
REQUIREMENTS = "edge"
CARRIED = {**CARRIED_PYTHON, "run_onnxruntime.py": "runtime.py"}
ARTIFACT, OPERATORS = "model.ort", "required_operators.config"


def write(job: ExportJob, folder: Path, announce: Announce) -> Written:
    """Convert the ONNX file of the build. `required_operators.config` lists what a reduced build must have."""
    with tempfile.TemporaryDirectory() as temporary:
        exported = export_onnx_file(job, Path(temporary))
        announce("convert")
        # Fixed: what is done to the graph now is the same on every machine; what fits one CPU alone is not.
        options = ["--optimization_style", "Fixed", "--target_platform", "arm", "--output_dir", temporary]
        command = [sys.executable, "-m", "onnxruntime.tools.convert_onnx_models_to_ort", *options, temporary]
        done = subprocess.run(command, capture_output=True, text=True)
        made = Path(temporary) / "model.ort"
        if done.returncode or not made.is_file():
            raise BackendError(f"ONNX Runtime cannot convert this model: {last_line(RuntimeError(done.stderr))}")
        made.rename(folder / ARTIFACT)
        (listed,) = Path(temporary).glob("*.config")
        lines = [line for line in listed.read_text("utf-8").splitlines() if not line.startswith("#")]
        (folder / OPERATORS).write_text("\n".join(lines) + "\n", "utf-8")
    return Written(ARTIFACT, job.fixed_batch, exported.quantization, {"operators": OPERATORS})


def open_runtime(folder: Path, announce: Announce) -> AbstractContextManager[EdgeModel]:
    return open_process(folder, sys.executable)
