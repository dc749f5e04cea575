"""Packages of Python files, run from where they lie."""

import sys
from pathlib import Path

import pytest

from vision_serving.errors import ConfigError
from vision_serving.graphs.python_files import list_files, load_attribute

FILES = {
    "shapes/__init__.py": "SIDES = 4",
    "shapes/square.py": "from . import SIDES\nfrom .lines.edge import length\n\n"
    "def area():\n    return length() * SIDES",
    "shapes/lines/__init__.py": "",
    "shapes/lines/edge.py": "import json\nfrom pathlib import Path\nimport shapes\n\n"
    "def length():\n    from .late import FACTOR\n"
    "    unit = json.loads((Path(__file__).parent / 'unit.json').read_text())\n    return shapes.SIDES * FACTOR * unit",
    "shapes/lines/late.py": "FACTOR = 10",
    "shapes/lines/unit.json": "3",
    "alone.py": "def area():\n    return 1",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, FILES)
    return tmp_path


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_files_of_a_package_import_each_other_and_leave_nothing_behind(folder: Path) -> None:
    assert load_attribute(folder, "shapes/square.py", "area")() == 4 * 4 * 10 * 3
    assert names_in(folder) == sorted(FILES), "bytecode beside them"


def test_the_folder_of_a_package_stands_for_its_own_file(folder: Path) -> None:
    assert load_attribute(folder, "shapes", "SIDES") == 4


def test_a_package_that_was_moved_takes_the_place_of_the_one_before(folder: Path) -> None:
    load_attribute(folder, "shapes/square.py", "area")
    write(folder / "moved", {**FILES, "shapes/__init__.py": "SIDES = 6"})
    assert load_attribute(folder / "moved", "shapes/square.py", "area")() == 6 * 6 * 10 * 3


def test_a_package_takes_the_name_of_no_other(folder: Path) -> None:
    (folder / "shapes").rename(folder / "torch")
    with pytest.raises(ConfigError, match="a package 'torch' is in use already; give this folder another name"):
        load_attribute(folder, "torch/square.py", "area")
    assert "torch.square" not in sys.modules


def test_what_travels_with_a_file_is_its_package_without_caches_and_weights(folder: Path) -> None:
    write(folder, {"shapes/weights.pth": "", "shapes/__pycache__/square.py": "", "shapes/x.pyc": ""})
    files = list_files(folder, "shapes/square.py")
    assert next(iter(files)) == "shapes/square.py"
    assert sorted(files) == [name for name in sorted(FILES) if name.startswith("shapes")]
    assert list_files(folder, "alone.py") == {"alone.py": folder / "alone.py"}
    assert list_files(folder / "shapes", "../alone.py") == {"alone.py": folder / "shapes" / ".." / "alone.py"}


def test_a_link_out_of_a_package_does_not_travel(folder: Path) -> None:
    (folder / "shapes" / "passwords.txt").symlink_to(folder / "alone.py")
    with pytest.raises(ConfigError, match=r"passwords\.txt: leads out of its package"):
        list_files(folder, "shapes/square.py")


@pytest.mark.parametrize("text", ["from .alone import area", "import alone"], ids=["relative", "plain"])
def test_files_that_import_each_other_outside_of_a_package_are_told_of_packages(folder: Path, text: str) -> None:
    write(folder, {"model.py": text})
    with pytest.raises(ConfigError, match=r"put them into a folder beside the recipe, with an __init__\.py"):
        load_attribute(folder, "model.py", "area")
