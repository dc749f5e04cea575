"""CONTRIBUTING.md is true: its diagram, its tree, and its steps for a new backend, followed to the letter."""

import ast
import graphlib
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from conftest import MakeRecipe
from markdown_pages import ROOT, read_page

PAGE = read_page("CONTRIBUTING.md")
CODE = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
ARROWS = [
    (before, after)
    for befores, afters in re.findall(r"^ +([\w &]+) --> ([\w &]+)$", PAGE, re.MULTILINE)
    for before, after in itertools.product(befores.split(" & "), afters.split(" & "))
]
ROOMS = {
    "core": ("vision_serving", ROOT / "handlers/vision_serving"),
    "tools": ("mar_tools", ROOT / "scripts/mar_tools"),
}
FLOW = {"handler", "batching"}  # files of the core that stand between its folders
COPIED = ("handlers", "scripts", "client", "tests", "examples", "requirements", "pyproject.toml", "config.properties")
TASK_NAMES = re.compile(r'"(?:classification|detection)"')


def list_rooms(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if (path / "__init__.py").is_file()} | {
        path.stem for path in folder.glob("*.py") if path.stem in FLOW
    }


def list_imports(package: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield (room, room that it imports)."""
    rooms = list_rooms(folder)
    for path in folder.rglob("*.py"):
        room = path.relative_to(folder).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith(f"{package}."):
                imported = str(node.module).split(".")[1]
                if room in rooms and imported in rooms and imported != room:
                    yield room, imported


def reachable(room: str) -> set[str]:
    found: set[str] = set()
    waiting = [room]
    while waiting:
        new = {after for before, after in ARROWS if before == waiting[-1]} - found
        waiting.pop()
        found |= new
        waiting += new
    return found


@pytest.mark.parametrize(("package", "folder"), ROOMS.values(), ids=ROOMS)
def test_the_diagram_shows_what_imports_what(package: str, folder: Path) -> None:
    imports = set(list_imports(package, folder))
    drawn = {arrow for arrow in ARROWS if arrow[0] in list_rooms(folder)}
    assert {room for arrow in drawn for room in arrow} == list_rooms(folder)
    assert drawn <= imports
    assert [arrow for arrow in imports if arrow[1] not in reachable(arrow[0])] == []


def test_the_diagram_has_no_circle() -> None:
    order = graphlib.TopologicalSorter[str]()
    for before, after in ARROWS:
        order.add(before, after)
    assert list(order.static_order())


def test_the_tree_shows_every_folder_of_both_packages() -> None:
    tree = PAGE[PAGE.index("```\nhandlers/") : PAGE.index("```mermaid")]
    shown = set(re.findall(r"^    (\w+)/ ", tree, re.MULTILINE))
    assert shown == {room for _, folder in ROOMS.values() for room in list_rooms(folder)} - FLOW


PACKAGES = [file for _, folder in ROOMS.values() for file in folder.rglob("__init__.py") if file.parent != folder]


def list_unnamed(package: Path) -> list[str]:
    """Return the files and folders of a package that neither its docstring nor a table like BACKENDS names."""
    tree = ast.parse(package.read_text(encoding="utf-8"))
    tables = [node.value for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)]
    places = [str(value.value) for table in tables for value in table.values if isinstance(value, ast.Constant)]
    named = {f"{place.partition(':')[0].rpartition('.')[2]}.py" for place in places}
    captions = ast.get_docstring(tree) or ""
    files = [path.name for path in package.parent.glob("*.py") if path != package]
    folders = [f"{path.parent.name}/" for path in package.parent.glob("*/__init__.py")]
    return [name for name in files + folders if name not in captions and name not in named]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda file: file.parent.name)
def test_a_package_says_in_its_docstring_or_table_what_each_of_its_files_is(package: Path) -> None:
    assert list_unnamed(package) == []


def test_files_that_know_the_tasks_are_named_where_a_task_is_added() -> None:
    steps = PAGE[PAGE.index("## Add a task") : PAGE.index("## Add an image format that requests may have")]
    folders = (ROOT / "handlers" / "vision_serving", ROOT / "scripts" / "mar_tools", ROOT / "client" / "vision_client")
    knowing = [path for folder in folders for path in folder.rglob("*.py") if TASK_NAMES.search(path.read_text())]
    names = {f"{path.parent.name}/{path.name}" if path.stem == "__init__" else path.name for path in knowing}
    assert sorted(name for name in names if f"{name}`" not in steps) == []


def add_line(file: Path, table: str, line: str) -> None:
    text = file.read_text(encoding="utf-8")
    end = text.index("\n}", text.index(f"\n{table} = {{")) + 1
    file.write_text(text[:end] + line + text[end:], encoding="utf-8")


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the backend of CONTRIBUTING.md, by its two files and two lines and nothing else."""
    copy = tmp_path_factory.mktemp("extended")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copyfile(source, copy / name)
    for name, code in CODE.items():
        if name.endswith("__init__.py"):
            add_line(copy / name, "BACKENDS" if name.startswith("handlers") else "EXPORTERS", code)
        else:
            (copy / name).write_text(code, encoding="utf-8")
    return copy


def run_in(copy: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join(str(copy / name) for name in ("handlers", "scripts", "client"))
    # A pytest in it is a run of its own, with folders of its own.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    environment["PYTHONPATH"] = path
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)


def test_a_backend_is_two_files_and_two_lines_that_are_shown() -> None:
    folders = sorted(Path(name).parent.name for name in CODE)
    assert folders == ["backends", "backends", "exporters", "exporters"]
    tables = [code for name, code in CODE.items() if name.endswith("__init__.py")]
    assert [len(code.splitlines()) for code in tables] == [1, 1]


def test_the_two_lines_name_the_two_files(extended: Path) -> None:
    packages = [name for name in CODE if name.endswith("__init__.py")]
    assert [list_unnamed(extended / name) for name in packages] == [[], []]


# The commands in one process, which imports PyTorch once; each candidate is timed as briefly as can be.
BUILD_PACK_AND_PREDICT = """
import dataclasses, runpy, sys
from mar_tools.building import build
_, recipe, folder, picture = sys.argv
brief = [("rounds", int, 1), ("round_s", float, 0.0)]
build.BuildOptions = dataclasses.make_dataclass("Brief", brief, bases=(build.BuildOptions,), frozen=True)
def run(script, *arguments):
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(f"scripts/{script}", run_name="__main__")
    except SystemExit as ended:
        if ended.code:
            raise
places = ("--exports", f"{folder}/exports", "--model-store", f"{folder}/store")
run("build_model.py", recipe, "--device", "cpu", "--budget-min", "0", *places)
run("package_model.py", f"{folder}/exports/tiny_classification/torch_export-fp32", "--model-store", f"{folder}/own")
run("predict_images.py", "--archive", f"{folder}/own/tiny_classification.mar", picture, "--json")
"""


def test_a_build_tries_the_new_backend_verifies_it_and_its_archive_predicts(
    extended: Path, tiny_recipe: MakeRecipe, tmp_path: Path
) -> None:
    picture = next((extended / "examples" / "photographs").glob("*.jpg"))
    finished = run_in(extended, "-c", BUILD_PACK_AND_PREDICT, tiny_recipe(), tmp_path, picture)
    assert finished.returncode == 0, finished.stderr
    rows = orjson.loads((tmp_path / "exports" / "tiny_classification" / "candidates.json").read_bytes())
    first, *others = rows
    assert (first["backend"], first["precision"]) == ("torch_export", "fp32")
    assert first["verdict"] in ("verified", "chosen"), first["reason"]
    assert {row["verdict"] for row in others} <= {"not tried", "verified", "chosen"}
    assert len(orjson.loads(finished.stdout.splitlines()[-1])["classes"]) == 3


def test_the_guards_and_the_contract_take_the_new_backend_as_it_is(extended: Path) -> None:
    tests = ("tests/test_architecture.py", "tests/test_requirements.py", "tests/contract/test_backends_agree.py")
    chosen = "torch_export or test_requirements or (test_architecture and (runtime or exporter))"
    finished = run_in(extended, "-m", "pytest", *tests, "-q", "-p", "no:cacheprovider", "-k", chosen)
    assert finished.returncode == 0, finished.stdout
