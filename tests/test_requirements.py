"""What each of the requirements files brings, and that nothing needs more than it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mar_tools.exporting.exporters import EXPORTERS
from vision_serving.backends import BACKENDS
from vision_serving.errors import EXTRAS, how_to_install
from vision_serving.source_constants import read_constant

ROOT = Path(__file__).resolve().parents[1]
DISTRIBUTIONS = {  # where a module is not called as what is installed
    "pillow_heif": "pillow-heif",
    "opentelemetry": "opentelemetry-sdk",
    "skimage": "scikit-image",
    "pytorch_lightning": "pytorch-lightning",
    "torch_pruning": "torch-pruning",
    "lab": "-e lab",
}
STATED = {
    name: read_constant(ROOT / "handlers" / "vision_serving" / "backends" / f"{name}.py", "REQUIREMENTS")
    for name in BACKENDS
}
NEED_EXTRAS = {name for name, requirements in STATED.items() if requirements}
# As an import of what is not installed; None makes importlib.util.find_spec say the same.
WITHOUT_EXTRAS = f"import sys; sys.modules.update(dict.fromkeys({sorted({*EXTRAS, *NEED_EXTRAS})}))"

# Files of the packages that run a server which need an optional package.
UNNEEDED = ("vision_serving.worker.span_export", "mar_tools.drift.histograms")


def required(name: str) -> set[str]:
    lines = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return {re.split(r"[<>=~]", line)[0] for line in lines}


def test_a_missing_package_is_in_the_requirements_that_its_message_names() -> None:
    for module, extra in EXTRAS.items():
        assert DISTRIBUTIONS.get(module, module) in required(extra)
    error = ModuleNotFoundError(name="onnx.helper")
    assert how_to_install(error) == "the package 'onnx': pip install -c constraints.txt -r requirements/onnx.txt"


@pytest.mark.parametrize("backend", sorted(NEED_EXTRAS))
def test_the_runtime_of_a_backend_is_in_the_requirements_that_its_file_states(backend: str) -> None:
    distributions = read_constant(ROOT / "handlers" / "vision_serving" / "backends" / f"{backend}.py", "DISTRIBUTIONS")
    assert distributions, f"{backend}.py states REQUIREMENTS, so it needs DISTRIBUTIONS: what a model card lists"
    assert required(STATED[backend]) & set(distributions)


def test_what_requirements_txt_brings_is_enough_for_the_backends_that_need_no_more() -> None:
    modules = (*BACKENDS.items(), *EXPORTERS.items())
    names = [place.partition(":")[0] for name, place in modules if name not in NEED_EXTRAS]
    code = f"{WITHOUT_EXTRAS}; import {', '.join(names)}"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


def test_what_serve_txt_brings_is_enough_to_serve() -> None:
    code = f"""{WITHOUT_EXTRAS}
sys.modules.update(dict.fromkeys(("model_archiver", "nncf", "torchao", "triton")))
import pkgutil, image_classification, image_embedding, object_detection, vision_serving.worker as worker
from importlib import import_module
from mar_tools import archives, drift, front, monitoring, playground, serving
for package in (worker, archives, drift, front, monitoring, playground, serving):
    for found in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if found.name not in {UNNEEDED}:
            import_module(found.name)"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
