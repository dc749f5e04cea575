"""The units of systemd: checked by systemd itself, and what the installation refuses."""

import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import RunHere

from mar_tools.command_line import ROOT
from mar_tools.serving.service_units import closed_to_others, fill_units

PAGE = (ROOT / "docs" / "operate" / "systemd.md").read_text(encoding="utf-8")
EXPOSURES = dict(re.findall(r"^\| `(vision-\w+)` \| ([\d.]+) \|$", PAGE, re.MULTILINE))
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze: apt install systemd"
)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A folder with both, for a Python and a checkout that are there."""
    for name, text in fill_units(Path(sys.executable), ROOT / "config.properties", in_a_home=False).items():
        (tmp_path / name).write_text(text)
    return tmp_path


def analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *map(str, arguments)], capture_output=True, text=True)


@needs_systemd
def test_systemd_takes_the_units(units: Path) -> None:
    finished = analyze("verify", *sorted(units.iterdir()))
    assert (finished.returncode, finished.stdout + finished.stderr) == (0, "")


@needs_systemd
def test_systemd_refuses_a_unit_that_misspells_a_key(units: Path) -> None:
    unit = units / "vision-server.service"
    unit.write_text(unit.read_text().replace("ProtectClock", "ProtectClok"))
    assert "ProtectClok" in analyze("verify", unit).stderr


@needs_systemd
@pytest.mark.parametrize("unit", sorted(EXPOSURES))
def test_the_page_tells_the_exposure_of_each_unit(units: Path, unit: str) -> None:
    said = analyze("security", "--offline=true", units / f"{unit}.service").stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found is not None, said
    assert float(found[1]) <= float(EXPOSURES[unit])  # another systemd knows other tests


def test_the_page_has_both_units() -> None:
    assert sorted(EXPOSURES) == sorted(path.stem for path in (ROOT / "deploy" / "systemd").glob("*.service"))


def test_what_the_user_of_the_service_cannot_read_is_refused_by_name(run_here: RunHere, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "config.properties").touch()
    tmp_path.chmod(0o700)  # as pytest makes it
    finished = run_here("install_service.py", "--config", closed / "config.properties", "--folder", tmp_path)
    assert finished.returncode == 1
    assert "the service's own user cannot read" in finished.stderr
    assert list(tmp_path.glob("*.service")) == []


def test_a_folder_that_is_not_there_is_named(run_here: RunHere, tmp_path: Path) -> None:
    finished = run_here("install_service.py", "--folder", tmp_path / "none")
    assert finished.returncode == 1
    assert f"{tmp_path}/none: no such folder; expected that of systemd's units" in finished.stderr


def test_a_file_is_closed_to_others_by_a_folder_above_it_or_by_itself(tmp_path: Path) -> None:
    (tmp_path / "file").touch(mode=0o644)
    closed = closed_to_others(tmp_path / "file")  # pytest's own folders are
    assert closed is not None
    assert not closed.stat().st_mode & stat.S_IXOTH
    assert closed_to_others(Path("/etc/passwd")) is None
