"""Exports that may go, and what stays."""

import json
import os
import time
from pathlib import Path

import pytest
from conftest import RunHere

from mar_tools.locking import building
from mar_tools.upkeep.disk import DAY_S, choose_old, read_exports


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    """Three models, of 40, 20 and 1 days ago, with a megabyte each."""
    for name, days in (("old", 40), ("middle", 20), ("new", 1)):
        folder = tmp_path / "exports" / name / "openvino-int8"
        folder.mkdir(parents=True)
        (folder / "model.bin").write_bytes(os.urandom(1_000_000))
        written = time.time() - days * DAY_S
        for path in (folder / "model.bin", folder, folder.parent):
            os.utime(path, (written, written))
    return tmp_path / "exports"


@pytest.mark.parametrize(
    ("days", "gb", "gone"),
    [
        (None, None, []),
        (30, None, ["old"]),
        (20.5, 1, ["old"]),
        (None, 0.0021, ["old"]),
        (30, 0.0015, ["old", "middle"]),
        (None, 0, ["old", "middle", "new"]),
    ],
)
def test_what_is_old_goes_and_then_the_oldest_until_the_rest_has_room(
    exports: Path, days: float | None, gb: float | None, gone: list[str]
) -> None:
    assert [export.folder.name for export in choose_old(read_exports(exports), days, gb)] == gone


def test_the_command_removes_exports_but_none_from_under_a_build(exports: Path, run_here: RunHere) -> None:
    common = ("--exports", exports, "--days", 10)
    assert run_here("clean_up.py", *common, "--dry-run").returncode == 0
    assert len(list(exports.iterdir())) == 3
    with building(exports, "middle"):  # which is the newest now
        done = run_here("clean_up.py", *common, "--gb", 0, "--json")
    assert done.returncode == 1
    assert f"{exports / 'middle'}: a build works there" in done.stderr
    assert [path.name for path in exports.iterdir()] == ["middle"]
    fates = {Path(row["folder"]).name: row["fate"] for row in json.loads(done.stdout)["exports"]}
    assert fates == {"old": "removed", "new": "removed", "middle": "stays: a build works there"}


def test_what_cannot_be_removed_keeps_no_other_export(exports: Path, run_here: RunHere) -> None:
    (exports / "old" / ".lock").mkdir()  # where a build would keep its lock
    done = run_here("clean_up.py", "--exports", exports, "--gb", 0, "--json")
    assert done.returncode == 1
    assert f"{exports / 'old'}: Is a directory" in done.stderr
    assert [path.name for path in exports.iterdir()] == ["old"]


def test_wrong_options_remove_nothing(exports: Path, tmp_path: Path, run_here: RunHere) -> None:
    done = run_here("clean_up.py", "--exports", tmp_path / "none", "--gb", 0)
    assert done.returncode == 2
    assert f"argument --exports: expected a folder, got '{tmp_path / 'none'}', which is not there" in done.stderr
    missing = tmp_path / "config.properties"
    done = run_here("clean_up.py", "--exports", exports, "--gb", 0, "--config", missing)
    assert (done.returncode, len(list(exports.iterdir()))) == (1, 3)
    assert f"{missing}: no such file; give --config with the server's config.properties" in done.stderr


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert read_exports(tmp_path / "exports") == []
