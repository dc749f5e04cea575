"""The sections of docs/use/own_models.md run as they stand there."""

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import RunHere

from mar_tools.archives.archive import check_archive
from mar_tools.building import build as build_steps
from mar_tools.building.packing import build_archive
from mar_tools.command_line import HANDLERS
from mar_tools.exporting.export import export_model
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import read_recipe
from mar_tools.verification.gate import verify_export

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "use" / "own_models.md"
SECTION = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BY_COMMAND = "A class in a Python file"  # the others take the same steps in this process, without the timing


@dataclass(frozen=True)
class BriefOptions(build_steps.BuildOptions):
    """Each candidate is timed as briefly as can be."""

    rounds: int = 1
    round_s: float = 0.0


FROM_A_FILE = "python scripts/new_recipe.py"


def sections() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    for title, text in SECTION.findall(PAGE.read_text(encoding="utf-8")):
        if BLOCK.search(text):
            yield title, BLOCK.findall(text)


def by_recipe(blocks: list[tuple[str, str]]) -> bool:
    return any(kind == "yaml" for kind, _ in blocks)


def run_python(title: str, blocks: list[tuple[str, str]]) -> None:
    for kind, text in blocks:
        if kind == "python" and not text.startswith("# "):
            exec(compile(text, title, "exec"), {"__name__": "__main__"})


def params(written: bool) -> list[Any]:
    """Sections with a recipe, or those whose recipe a command writes."""
    return [pytest.param(title, blocks, id=title) for title, blocks in sections() if by_recipe(blocks) == written]


def write_files(blocks: list[tuple[str, str]], folder: Path) -> Path:
    """The recipe and what it names, saved under their names; gives the recipe's path."""
    (recipe_text,) = (text for kind, text in blocks if kind == "yaml")
    recipe = folder / recipe_text.splitlines()[0].removeprefix("# ")
    recipe.write_text(recipe_text, encoding="utf-8")
    for kind, text in blocks:
        if kind == "json":
            (folder / yaml.safe_load(recipe_text)["labels"]).write_text(text, encoding="utf-8")
        if kind == "python" and text.startswith("# "):
            (folder / text.splitlines()[0].removeprefix("# ")).write_text(text, encoding="utf-8")
    return recipe


def build(recipe_path: Path, folder: Path) -> None:
    recipe = read_recipe(recipe_path)
    export = export_model(recipe, load_checkpoint(recipe), "eager", "fp32", folder / "exports")
    report = verify_export(export)
    assert report["passed"], report["failures"]
    build_archive(export, HANDLERS, folder / "store")


@pytest.mark.parametrize(("title", "blocks"), params(written=False))
def test_a_section_whose_recipe_is_written_builds_its_archive(
    title: str, blocks: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_here: RunHere
) -> None:
    monkeypatch.chdir(tmp_path)
    run_python(title, blocks)
    (commands,) = (text.splitlines() for kind, text in blocks if kind == "bash")
    assert commands[0].startswith(FROM_A_FILE)
    written = run_here("new_recipe.py", *shlex.split(commands[0])[2:])
    assert written.returncode == 0, written.stderr
    told = written.stdout.splitlines()[-1].replace(f"{ROOT}/", "")  # a command names its neighbour as it was called
    assert told == f"next: {commands[1]}"
    recipe = tmp_path / shlex.split(commands[1])[2]
    build(recipe, tmp_path)
    assert check_archive(tmp_path / "store" / f"{recipe.stem}.mar") == (recipe.stem, "1.0")


@pytest.mark.parametrize(("title", "blocks"), params(written=True))
def test_a_section_builds_its_archive(
    title: str, blocks: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_here: RunHere
) -> None:
    recipe = write_files(blocks, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, recipe.stem, raising=False)  # and afterwards, what was imported from tmp_path
    run_python(title, blocks)
    (command,) = (text for kind, text in blocks if kind == "bash")
    program, script, *arguments = shlex.split(command)
    assert (program, script, arguments) == ("python", "scripts/build_model.py", [recipe.name])
    if title == BY_COMMAND:
        monkeypatch.setattr(build_steps, "BuildOptions", BriefOptions)
        quick = ("--backend", "eager", "--precision", "fp32", "--device", "cpu")  # the page lets the build choose
        finished = run_here("build_model.py", *arguments, *quick, "--exports", "exports", "--model-store", "store")
        assert finished.returncode == 0, finished.stderr
        archive, report, told = finished.stdout.splitlines()
        assert Path(report) == Path("exports", recipe.stem, "report.html")
        assert "<img " in Path(report).read_text(encoding="utf-8")
        python, predict, *asked = shlex.split(told.removeprefix("next: "))
        assert (python, asked[:2]) == ("python", ["--archive", archive])
        answered = run_here(Path(predict).name, *asked)
        assert answered.returncode == 0, answered.stderr
        assert Path(asked[2]).name in answered.stdout, "what a build tells to type works"
    else:
        build(recipe, tmp_path)
    assert check_archive(tmp_path / "store" / f"{recipe.stem}.mar") == (recipe.stem, "1.0")
