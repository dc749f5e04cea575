"""A package that an archive needs and that is missing is named before a server starts."""

import importlib.machinery
import importlib.util
import sys
import zipfile
from pathlib import Path

import orjson
import pytest
from conftest import TinyModel

from mar_tools.archives import packages
from mar_tools.archives.archive import MANIFEST, open_archive
from mar_tools.archives.policy import check_served, read_policy
from mar_tools.building.packing import build_archive
from vision_serving.backends import BACKENDS
from vision_serving.errors import ConfigError

HANDLERS = Path(__file__).resolve().parents[3] / "handlers"


def serve(archive: Path) -> None:
    config = archive.with_name("config.properties")
    config.write_text("model_store=.\n")
    check_served(archive.name, read_policy(config))


def take_away(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Let Python find no package of this name, as where it is not installed."""

    def find(name: str) -> importlib.machinery.ModuleSpec | None:
        return None if name == missing else importlib.util.find_spec(name)

    monkeypatch.setattr(packages, "find_spec", find)


def test_an_archive_whose_packages_are_there_is_served(archive: Path) -> None:
    serve(archive)


def test_a_missing_runtime_is_named_with_the_line_that_brings_it(
    tiny_classifier: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = build_archive(tiny_classifier.folders["onnxruntime"], HANDLERS, tmp_path)
    take_away(monkeypatch, "onnxruntime")
    said = r"its backend 'onnxruntime' needs the package 'onnxruntime': pip install .*-r requirements/onnx\.txt"
    with pytest.raises(ConfigError, match=said):
        serve(archive)


@pytest.mark.parametrize(
    ("source", "needed"),
    [("torchvision", ["torchvision"]), ("huggingface", ["transformers"]), ("python", [])],
)
def test_a_network_asks_for_the_library_that_builds_it(tmp_path: Path, source: str, needed: list[str]) -> None:
    path = tmp_path / "model.mar"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(MANIFEST, orjson.dumps({"model": {"modelName": "m", "modelVersion": "1.0"}}))
        packed.writestr("model/source.json", orjson.dumps({"network": {"source": source}}))
    assert packages._builders(open_archive(path), "model") == needed


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_the_imports_of_each_backend_are_packages_that_somebody_installs(backend: str) -> None:
    found = packages._imports_of(packages.BACKENDS / f"{backend}.py")
    assert "torch" in found
    assert not set(found) & sys.stdlib_module_names
