"""Which build of PyTorch scripts/install.sh takes, with an index of small packages of the same names."""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PINS = {"torch": "2.14.1", "torchvision": "0.29.2"}


def write_index(folder: Path) -> str:
    """Write an index as PyTorch's for CPUs, whose packages hold nothing. Return its address."""
    for name, version in PINS.items():
        place = folder / name
        place.mkdir(parents=True)
        build = f"{name}-{version}+cpu"
        with zipfile.ZipFile(place / f"{build}-py3-none-any.whl", "w") as wheel:
            about = f"{build}.dist-info"
            wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}+cpu\n")
            wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{about}/RECORD", "")
        (place / "index.html").write_text(f'<a href="{build}-py3-none-any.whl">{build}</a>')
    return folder.as_uri()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the script, the pins of this test, an environment and an index."""
    folder = tmp_path_factory.mktemp("install")
    (folder / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "install.sh", folder / "scripts")
    (folder / "constraints.txt").write_text("".join(f"{name}=={version}\n" for name, version in PINS.items()))
    write_index(folder / "index")
    call(folder, "make_environment")
    return folder


def call(folder: Path, line: str, **environment: str) -> str:
    """Return what a line of bash prints that has sourced the script. pip asks nothing but the index that is given."""
    own = {"TORCH_INDEX": (folder / "index").as_uri(), "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
    command = ["bash", "-c", f"set -euo pipefail; source scripts/install.sh; make_environment; {line}"]
    variables = {**os.environ, **own, **environment}
    finished = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def installed(folder: Path, name: str) -> list[str]:
    found = folder.glob(f".venv/lib/*/site-packages/{name}-*.dist-info")
    return [path.name.removesuffix(".dist-info").partition("-")[2] for path in found]


def test_a_cpu_build_comes_from_its_index_and_goes_where_a_gpu_build_is_asked_for(checkout: Path) -> None:
    call(checkout, "install_torch --cpu requirements.txt")
    assert (installed(checkout, "torch"), installed(checkout, "torchvision")) == (["2.14.1+cpu"], ["0.29.2+cpu"])
    assert call(checkout, "choose_build") == "--cpu\n"
    call(checkout, "install_torch --gpu requirements.txt")
    assert (installed(checkout, "torch"), installed(checkout, "torchvision")) == ([], [])


def test_serving_alone_gets_no_torchvision(checkout: Path) -> None:
    call(checkout, "install_torch --cpu requirements/serve.txt")
    assert (installed(checkout, "torch"), installed(checkout, "torchvision")) == (["2.14.1+cpu"], [])
    call(checkout, "install_torch --gpu requirements/serve.txt")


def test_without_cpu_builds_one_line_says_that_the_ordinary_index_is_asked(checkout: Path) -> None:
    nowhere = (checkout / "nowhere").as_uri()
    said = call(checkout, "install_torch --cpu requirements.txt", TORCH_INDEX=nowhere)
    assert said.splitlines() == [
        f"== no CPU builds of PyTorch at {nowhere}: the ordinary index's are taken, 4.5 GB more"
    ]
    assert installed(checkout, "torch") == []


@pytest.mark.parametrize(("listing", "build"), [("exit 0", "--gpu"), ("exit 9", "--cpu")], ids=["a GPU", "none"])
def test_a_new_environment_goes_by_the_gpu(checkout: Path, tmp_path: Path, listing: str, build: str) -> None:
    """`exit 9` is the status of nvidia-smi where a driver is installed and no GPU is there."""
    if build == "--cpu" and Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a GPU")
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{listing}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert call(checkout, "choose_build", PATH=f"{tmp_path}:{os.environ['PATH']}") == f"{build}\n"


def test_an_environment_in_another_place_is_named_with_what_to_do(checkout: Path, tmp_path: Path) -> None:
    there = shutil.copytree(checkout, tmp_path / "there", symlinks=True)
    with pytest.raises(AssertionError, match=f"made as {checkout}/.venv, and works there alone; move this folder back"):
        call(there, "true")
