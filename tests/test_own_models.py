"""The sections of docs/own_models.md run as they stand there."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "own_models.md"
SECTION = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
QUICK = (
    "--backend",
    "eager",
    "--precision",
    "fp32",
)  # the page leaves the choice to the build, which takes minutes


def sections() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    for title, text in SECTION.findall(PAGE.read_text(encoding="utf-8")):
        yield title, BLOCK.findall(text)


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


def run(command: list[str], folder: Path) -> None:
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize(("title", "blocks"), [pytest.param(*section, id=section[0]) for section in sections()])
def test_a_section_builds_its_archive(title: str, blocks: list[tuple[str, str]], tmp_path: Path) -> None:
    recipe = write_files(blocks, tmp_path)
    for kind, text in blocks:
        if kind == "python" and not text.startswith("# "):
            run([sys.executable, "-c", text], tmp_path)
    (command,) = (text for kind, text in blocks if kind == "bash")
    program, script, *arguments = shlex.split(command)
    assert (program, arguments[0]) == ("python", recipe.name), title
    places = ("--device", "cpu", "--exports", "exports", "--model-store", "store")
    run([sys.executable, str(ROOT / script), *arguments, *QUICK, *places], tmp_path)
    assert (tmp_path / "store" / f"{recipe.stem}.mar").is_file()
