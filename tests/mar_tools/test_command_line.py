"""The help of every command, and what it says outside the environment."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mar_tools.command_line import ROOT, DocstringHelp
from vision_serving.errors import EXTRAS

COMMANDS = sorted((ROOT / "scripts").glob("*.py"))
SHELL_COMMANDS = sorted((ROOT / "scripts").glob("*.sh"))
COLUMNS = 80
DOCSTRING = """Build a thing from a recipe, with so many words that one line of a narrow terminal does not hold them.

    python build.py recipe.yaml
    python build.py recipe.yaml --json results.json    # writes them, too
"""


def run_in_terminal(*command: object) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "COLUMNS": str(COLUMNS)}
    return subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda path: path.name)
def test_help_is_narrow_and_needs_neither_pytorch_nor_an_optional_package(command: Path) -> None:
    finished = run_in_terminal(sys.executable, "-X", "importtime", command, "--help")
    assert finished.returncode == 0
    assert finished.stdout.startswith("usage:")
    assert [line for line in finished.stdout.splitlines() if len(line) > COLUMNS] == []
    imported = {line.rpartition("|")[2].strip() for line in finished.stderr.splitlines()}
    assert imported & {"torch", *EXTRAS} == set()


@pytest.mark.parametrize("command", SHELL_COMMANDS, ids=lambda path: path.name)
def test_help_of_a_shell_command_is_its_comment_and_nothing_happens(command: Path) -> None:
    finished = run_in_terminal("bash", command, "--help")
    assert (finished.returncode, finished.stderr) == (0, "")
    shown = finished.stdout.splitlines()
    assert [line for line in shown if len(line) > COLUMNS] == []
    comments = [line.removeprefix("#").strip() for line in command.read_text().splitlines() if line.startswith("#")]
    assert [line for line in map(str.strip, shown) if line not in comments] == []


@pytest.mark.parametrize("given", ["flowers.pth", "flowers", "make.py"])
@pytest.mark.parametrize("command", ["build_model.py", "export_model.py"])
def test_a_model_in_place_of_a_recipe_is_refused_with_the_command_that_writes_one(command: str, given: str) -> None:
    finished = run_in_terminal(sys.executable, ROOT / "scripts" / command, given)
    assert finished.returncode == 2
    told = f"expected a recipe, a .yaml file, got '{given}'; new_recipe.py writes one for a model"
    assert told in finished.stderr


@pytest.fixture
def uninstalled(tmp_path: Path) -> Path:
    """A checkout's commands, without an environment."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run_uninstalled(root: Path, command: Path) -> "subprocess.CompletedProcess[str]":
    """Run a copied command as a Python without any packages would, in the folder of the copy."""
    bare = [sys.executable, "-E", "-S", f"scripts/{command.name}"]
    return subprocess.run(bare, cwd=root, capture_output=True, text=True)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda path: path.name)
def test_outside_the_environment_a_command_says_what_activates_it(uninstalled: Path, command: Path) -> None:
    finished = run_uninstalled(uninstalled, command)
    assert (finished.returncode, finished.stdout) == (1, "")
    (said,) = finished.stderr.splitlines()
    assert said.endswith("run `bash scripts/quickstart.sh` first")
    (uninstalled / ".venv").mkdir()
    (said,) = run_uninstalled(uninstalled, command).stderr.splitlines()
    assert said.endswith("run `source .venv/bin/activate` first")


def test_prose_is_wrapped_and_a_long_example_stays_a_command_that_can_be_copied() -> None:
    assert DocstringHelp("build.py", width=50)._fill_text(DOCSTRING, 50, "").splitlines() == [
        "Build a thing from a recipe, with so many words",
        "that one line of a narrow terminal does not hold",
        "them.",
        "",
        "    python build.py recipe.yaml",
        "    # writes them, too",
        "    python build.py recipe.yaml \\",
        "        --json results.json",
    ]
    assert "recipe.yaml --json results.json    # writes" in DocstringHelp("build.py")._fill_text(DOCSTRING, 90, "")
