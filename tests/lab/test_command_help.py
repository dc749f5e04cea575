"""Every command of the laboratory where only the product is installed, or nothing at all."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mar_tools.command_line import ROOT
from vision_serving.errors import EXTRAS

COMMANDS = [path for path in sorted((ROOT / "lab").glob("*.py")) if path.stem != "__init__"]
RUN = """
import atexit, runpy, sys
atexit.register(lambda: print("torch" in sys.modules, file=sys.stderr))
sys.modules.update(dict.fromkeys({missing}))
sys.argv[1:] = {arguments}
runpy.run_path({path!r}, run_name="__main__")
"""


def run_bare(path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    code = RUN.format(missing=sorted(EXTRAS), path=str(path), arguments=list(arguments))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_help_needs_neither_the_laboratory_nor_pytorch(path: Path) -> None:
    finished = run_bare(path, "--help")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("usage:")
    assert finished.stderr.strip() == "False"


def test_a_missing_package_is_named_with_the_command_that_brings_it() -> None:
    finished = run_bare(ROOT / "lab" / "run_chaos.py", "--list")
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[0] == (
        "error: this needs the package 'lab': pip install -c constraints.txt -r requirements/lab.txt"
    )


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_outside_the_environment_a_command_says_what_activates_it(path: Path, tmp_path: Path) -> None:
    """In a copy of the checkout, with a Python that has no packages."""
    for needed in (path, ROOT / "scripts" / "mar_tools" / "__init__.py"):
        copied = tmp_path / needed.relative_to(ROOT)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(needed, copied)
    (tmp_path / ".venv").mkdir()
    command = [sys.executable, "-E", "-S", f"lab/{path.name}", "--help"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (finished.returncode, finished.stdout) == (1, "")
    (said,) = finished.stderr.splitlines()
    assert said.endswith("run `source .venv/bin/activate` first")
