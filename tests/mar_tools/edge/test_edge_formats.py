"""Both examples leave in each format, and its own runtime answers as eager fp32 does."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import RunHere

from mar_tools.command_line import ROOT
from mar_tools.edge.environments import find_python

pytestmark = pytest.mark.lab

EXAMPLES = {"classification": ROOT / "examples/digits_classification", "detection": ROOT / "examples/digits_detection"}
MISSING = {
    "executorch": None if find_spec("executorch") else "executorch is not installed",
    "litert": None if find_python("litert") else "export_edge.py --format litert --yes makes its environment",
    "onnx-web": None if shutil.which("npm") and shutil.which("chromium") else "npm or Chromium is missing",
    "ort": None,
}
LEAST_DB = {"fp32": 100.0, "int8": 30.0}  # over all pictures
LEAST_IOU = {("litert", "int8"): 0.9}  # at a box's place; it was not measured
MOST_MB = {"fp32": 6.5, "int8": 4.5}  # of int8, a part may be kept in float


@pytest.mark.parametrize("precision", LEAST_DB)
@pytest.mark.parametrize("task", EXAMPLES)
@pytest.mark.parametrize("form", MISSING)
def test_an_example_leaves_in_a_format_and_answers_there_as_here(
    run_here: RunHere, tmp_path: Path, form: str, task: str, precision: str
) -> None:
    reason = MISSING[form]
    if reason is not None:
        pytest.skip(reason)
    recipe, folder = EXAMPLES[task] / "recipe.yaml", tmp_path / "folder"
    arguments = ("--format", form, "--precision", precision, "--output", folder)
    done = run_here("export_edge.py", recipe, *arguments)
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "verification.json").read_text())
    measured = report["measured"]
    assert report["artifact_mb"] <= MOST_MB[precision]
    assert measured["overall_snr_db"] >= LEAST_DB[precision], measured
    if task == "classification":
        assert measured["top1_agreement"] >= 0.99
    else:
        assert measured["answered_iou"] >= LEAST_IOU.get((form, precision), 0.99)
        assert measured["matched_boxes"] >= 0.98
