import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import orjson
import pytest
import yaml
from conftest import TinyModel

from mar_tools.archives.archive import DIGESTS, MANIFEST, SBOM, extract_archive
from mar_tools.building.packing import build_archive
from mar_tools.command_line import HANDLERS
from vision_serving.errors import ConfigError


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_archive_is_named_after_its_model(archive: Path) -> None:
    assert archive.name == "tiny_classification.mar"
    assert [path.name for path in archive.parent.iterdir()] == ["tiny_classification.mar"]


def test_built_from_another_folder_at_another_time_with_another_umask_zone_and_locale_it_is_the_same(
    archive: Path, tiny_classifier: TinyModel, tmp_path: Path
) -> None:
    handlers, export = tmp_path / "elsewhere" / "code", tmp_path / "elsewhere" / "export"
    shutil.copytree(HANDLERS, handlers, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copytree(tiny_classifier.folders["openvino"], export)
    for path in [*handlers.rglob("*"), *export.rglob("*")]:
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(path.stat().st_mode & ~0o077)
    store = tmp_path / "another_store"
    code = "import sys; from pathlib import Path; from mar_tools.building.packing import build_archive; "
    code += "build_archive(*map(Path, sys.argv[1:]))"
    changed = {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "1"}
    command = [sys.executable, "-c", code, str(export), str(handlers), str(store)]
    finished = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **changed}, umask=0o077)
    assert finished.returncode == 0, finished.stderr
    assert sha256(store / archive.name) == sha256(archive)


def test_the_manifest_names_the_entry_file_and_a_fixed_time(archive: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        manifest = orjson.loads(packed.read(MANIFEST))
    assert manifest["createdOn"] == "01/01/1980 00:00:00"
    assert manifest["model"]["modelName"] == "tiny_classification"
    assert manifest["model"]["modelVersion"] == "1.0"
    assert manifest["model"]["handler"] == "image_classification.py"


def test_handlers_are_the_root_of_an_archive_and_nothing_else_is_packed(archive: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        names = packed.namelist()
    assert names == sorted(set(names))
    sources = {
        path.relative_to(HANDLERS).as_posix() for path in HANDLERS.rglob("*.py") if "egg-info" not in path.as_posix()
    }
    export = {"model.xml", "model.bin", "labels.json", "verification.json", "golden.json", "golden.png"}
    assert set(names) - {MANIFEST, DIGESTS, SBOM, "model-config.yaml"} == sources | export


def test_the_packed_configuration_is_the_export_s(archive: Path, tiny_classifier: TinyModel) -> None:
    with zipfile.ZipFile(archive) as packed:
        config = yaml.safe_load(packed.read("model-config.yaml"))
    assert config == yaml.safe_load((tiny_classifier.folders["openvino"] / "model-config.yaml").read_text())


def test_entries_are_stored_with_fixed_times_and_modes(archive: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        entries = packed.infolist()
        assert packed.testzip() is None
    assert {(e.date_time, e.external_attr >> 16, e.compress_type) for e in entries} == {
        ((1980, 1, 1, 0, 0, 0), 0o100644, zipfile.ZIP_STORED)
    }


def test_an_export_that_is_not_verified_is_not_packed(tiny_classifier: TinyModel, tmp_path: Path) -> None:
    export = shutil.copytree(tiny_classifier.folders["openvino"], tmp_path / "export")
    (export / "verification.json").unlink()
    with pytest.raises(ConfigError, match="not verified"):
        build_archive(export, HANDLERS, tmp_path / "model_store")
    assert not (tmp_path / "model_store").exists()


def test_a_failed_packing_leaves_the_former_archive_and_no_rest(
    archive: Path, tiny_classifier: TinyModel, tmp_path: Path
) -> None:
    store = tmp_path / "model_store"
    shutil.copytree(archive.parent, store)
    (tmp_path / "no_handlers").mkdir()
    with pytest.raises(ConfigError, match="torch-model-archiver failed"):
        build_archive(tiny_classifier.folders["openvino"], tmp_path / "no_handlers", store)
    assert [path.name for path in store.iterdir()] == [archive.name]
    assert sha256(store / archive.name) == sha256(archive)


def test_an_archive_can_be_read_by_others(archive: Path) -> None:
    assert archive.stat().st_mode & 0o044 == 0o044


def test_an_extracted_archive_holds_the_packed_bytes(archive: Path, tmp_path: Path, tiny_classifier: TinyModel) -> None:
    extract_archive(archive, tmp_path / "model")
    packed = tmp_path / "model" / "model.bin"
    assert packed.read_bytes() == (tiny_classifier.folders["openvino"] / "model.bin").read_bytes()


@pytest.mark.parametrize(
    "content", [None, b"", b"garbage", b"PK\x05\x06" + bytes(18)], ids=["missing", "empty", "garbage", "no manifest"]
)
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.mar"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.mar"):
        extract_archive(path, tmp_path / "folder")


def test_a_damaged_archive_is_refused(archive: Path, tmp_path: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[data.index(b"VisionHandler")] ^= 1
    (tmp_path / "x.mar").write_bytes(data)
    with pytest.raises(ConfigError, match=r"x\.mar: not a readable archive \(its entry .* is damaged\)"):
        extract_archive(tmp_path / "x.mar", tmp_path / "folder")
