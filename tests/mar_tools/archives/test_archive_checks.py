"""Hostile archives are refused, each for its own reason; ours, and stock ones that are well-formed, are not."""

import os
import random
import runpy
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from conftest import CPU_BACKENDS, TinyModel
from fakes import NESTED_MERGES

from mar_tools.archives.archive import SBOM, check_archive, extract_archive, open_archive
from mar_tools.archives.checks import verify_archive
from mar_tools.archives.contents import Difference, find_changes, list_contents
from mar_tools.archives.model_cards import read_card
from mar_tools.archives.pickles import find_pickle
from mar_tools.archives.policy import read_policy
from mar_tools.building.packing import build_archive
from mar_tools.command_line import HANDLERS, ROOT
from mar_tools.serving.archive_choice import check_registered, choose_archives
from mar_tools.terminal import print_tables
from vision_serving.errors import ConfigError

SCRIPT = ROOT / "scripts" / "inspect_archive.py"


@pytest.fixture
def stock(archive: Path, tmp_path: Path) -> Path:
    """As torch-model-archiver writes one: deflated, with times, without our digests, and with a pickle."""
    path = tmp_path / "stock.mar"
    with zipfile.ZipFile(archive) as ours, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.mkdir("folder") if hasattr(packed, "mkdir") else packed.writestr("folder/", b"")
        for name in ours.namelist():
            if "DIGESTS" not in name:
                packed.writestr(name, ours.read(name))
        packed.writestr("model.pth", b"\x80\x02.")
    return path


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_an_archive_of_every_backend_is_accepted(backend: str, tiny_classifier: TinyModel, tmp_path: Path) -> None:
    built = build_archive(tiny_classifier.folders[backend], HANDLERS, tmp_path)
    assert verify_archive(built).identity == ("tiny_classification", "1.0")


def test_a_stock_archive_is_served_unless_only_ours_are(stock: Path, tmp_path: Path) -> None:
    assert check_archive(stock)[0] == "tiny_classification"
    config = tmp_path / "config.properties"
    config.write_text("model_store=.\n")
    assert check_registered(config, stock.name).identity[0] == "tiny_classification"
    config.write_text("model_store=.\nvision_archives=ours\n")
    with pytest.raises(ConfigError, match=r"no MAR-INF/DIGESTS\.json"):
        check_registered(config, stock.name)
    config.write_text("vision_archives=all\n")
    with pytest.raises(ConfigError, match="expected one of"):
        read_policy(config)


def repack(archive: Path, target: Path, changes: dict[str, bytes]) -> Path:
    """Write an archive that is not ours (deflated, without digests) with other contents."""
    with zipfile.ZipFile(archive) as ours, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        contents = {name: ours.read(name) for name in ours.namelist() if "DIGESTS" not in name}
        for name, content in {**contents, **changes}.items():
            packed.writestr(name, content)
    return target


def sparse(size: int) -> bytes:
    """Return `size` bytes that deflate to a hundredth, but not to less."""
    return (random.Random(3).randbytes(1 << 14) + bytes((1 << 20) - (1 << 14))) * (size >> 20)


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("model-config.yaml", NESTED_MERGES, "anchor or alias"),
        ("settings/other.yml", NESTED_MERGES, "anchor or alias"),
        ("settings/other.yml", b"a: &unused 1", "anchor or alias"),
        ("settings/other.yml", sparse(2 << 20), "expected at most 1,048,576"),
        ("MAR-INF/MANIFEST.json", sparse(64 << 20), "expected at most 1,048,576"),
    ],
    ids=["merges", "merges under another name", "anchor", "large yaml", "large manifest"],
)
def test_no_server_gets_a_yaml_or_manifest_that_swells(
    archive: Path, tmp_path: Path, file: str, content: bytes, reason: str
) -> None:
    manifest = {"model": {"modelName": "stock", "handler": "handler.py", "configFile": file}}
    store = tmp_path / "model_store"
    store.mkdir()
    repack(archive, store / "x.mar", {"MAR-INF/MANIFEST.json": orjson.dumps(manifest), file: content})
    config = tmp_path / "config.properties"
    config.touch()
    for attempt in (lambda: choose_archives(config), lambda: check_registered(config, "x.mar")):
        with pytest.raises(ConfigError, match=reason):
            attempt()


@pytest.mark.parametrize(
    ("labels", "content", "reason"),
    [
        ("../outside.json", b'["secret"]', "inside the archive"),
        ("words.json", b'["' + sparse(2 << 20).hex().encode() + b'"]', "over 1,048,576 bytes"),
        ("verification.json", b"[]" + b" " * 900, "expected a list|expected an object"),
    ],
    ids=["outside", "large", "no labels"],
)
def test_a_card_is_read_from_the_archive_alone_and_never_without_a_bound(
    archive: Path, tmp_path: Path, labels: str, content: bytes, reason: str
) -> None:
    with zipfile.ZipFile(archive) as packed:
        config = packed.read("model-config.yaml").replace(b"labels: labels.json", f"labels: {labels}".encode())
    assert labels.encode() in config
    inner = {} if labels.startswith("..") else {labels: content}
    (tmp_path / "outside.json").write_bytes(content)
    path = repack(archive, tmp_path / "x.mar", {"model-config.yaml": config, **inner})
    with pytest.raises(ConfigError, match=reason):
        read_card(path)


def test_a_pipe_in_the_store_holds_nobody_up(archive: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mar")
    shutil.copy(archive, tmp_path)
    config = tmp_path / "config.properties"
    config.write_text("model_store=.\n")
    choice = choose_archives(config)
    assert list(choice.served) == [archive.name]
    assert "it is no file" in choice.left_out["pipe.mar"]


# What no archive may have, whoever built it. tests/lab/reliability/test_archive_rows.py has every kind.
SPOILT: dict[str, Callable[[bytes], bytes]] = {
    "prefix": lambda good: b"#!/bin/sh\n" + good,
    "suffix": lambda good: good + b"more",
    "cut": lambda good: good[:-1],
    "bad CRC": lambda good: good.replace(b"VisionHandler", b"visionHandler", 1),
    "path traversal": lambda good: good.replace(b"labels.json", b"../evil.jso"),
    "absolute path": lambda good: good.replace(b"labels.json", b"/labels.jso"),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_what_two_readers_could_read_as_two_things_is_neither_served_nor_extracted(
    archive: Path, spoil: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path, config = tmp_path / "model_store" / "x.mar", tmp_path / "config.properties"
    path.parent.mkdir()
    path.write_bytes(spoil(archive.read_bytes()))
    config.touch()
    for take in (
        lambda: choose_archives(config),
        lambda: check_registered(config, "x.mar"),
        lambda: extract_archive(path, tmp_path / "deep" / "folder"),
    ):
        with pytest.raises(ConfigError, match=r"x\.mar"):
            take()
    assert {entry.name for entry in tmp_path.rglob("*") if entry.is_file()} == {"x.mar", "config.properties"}


def test_weights_that_begin_like_a_pickle_are_none() -> None:
    assert find_pickle("model.bin", b"\x80\x02" + bytes(4000)) is None
    assert find_pickle("model.bin", b"c" + random.Random(1).randbytes(4000)) is None


def test_weights_that_name_something_by_chance_before_any_text_are_no_pickle() -> None:
    """0x93 imports what two texts on the stack name; here the stack has two numbers, which no unpickler takes."""
    assert find_pickle("weights.bin", b"K\x01K\x02\x93." + b"\x00" * 16) is None
    assert find_pickle("program.bin", b"\x8c\x02os\x8c\x06system\x93.") is not None


def test_the_bill_of_materials_is_valid_and_names_what_is_installed(archive: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = open_archive(archive).read(SBOM).decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = orjson.loads(text)
    assert {"torch", "torchserve", "openvino"} <= {component["name"] for component in document["components"]}
    assert "serialNumber" not in document
    assert "timestamp" not in document["metadata"]


def test_a_difference_is_named_file_by_file_and_value_by_value(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        contents = {name: packed.read(name) for name in packed.namelist()}
    labels = contents["labels.json"].replace(b"dog", b"wolf")
    config = contents["model-config.yaml"].replace(b"startupTimeout: ", b"startupTimeout: 1")
    other = tmp_path / "other.mar"
    with zipfile.ZipFile(other, "w") as packed:
        for name, content in {**contents, "labels.json": labels, "model-config.yaml": config, "new.txt": b""}.items():
            packed.writestr(name, content)
    changes = find_changes(open_archive(archive), open_archive(other))
    assert [(change.kind, change.name) for change in changes] == [
        ("file", "labels.json"),
        ("file", "model-config.yaml"),
        ("file", "new.txt"),
        ("config", "startupTimeout"),
        ("labels", "1"),
    ]
    assert (changes[-1].before, changes[-1].after) == ("dog", "wolf")
    assert find_changes(open_archive(archive), open_archive(archive)) == []


def test_the_table_of_differences_breaks_no_name_and_has_12_digits_of_a_digest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = "accuracy.reference.mean_average_precision_of_small_boxes"
    changes_table = runpy.run_path(str(SCRIPT))["changes_table"]
    changes = [
        Difference("file", "vision_serving/requests/payload.py", "0123456789abcdef" * 4, "fedcba9876543210" * 4),
        Difference("card", long, "0.75 of 1", "0.5 of 1 which is much less than it has been"),
        Difference("labels", "[red]7", None, "cat"),
    ]
    print_tables(changes_table(changes))
    text = capsys.readouterr().out
    assert " vision_serving/requests/payload.py: 0123456789ab -> fedcba987654 " in text
    assert f"{long}: " in text
    assert "[red]7: none -> cat" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.fixture
def copies(archive: Path, tmp_path: Path) -> tuple[Path, Path]:
    damaged = tmp_path / "damaged.mar"
    damaged.write_bytes(archive.read_bytes()[:-1])
    return Path(shutil.copy(archive, tmp_path)), damaged


def test_the_command_shows_contents_verifies_and_refuses(copies: tuple[Path, Path]) -> None:
    good, damaged = copies

    def inspect(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True)

    shown = orjson.loads(inspect(good, "--contents", "--json").stdout)
    assert shown["files"] == list_contents(open_archive(good))
    assert shown["signature"] == {"state": "unsigned"}
    verified = inspect(good, "--verify")
    assert (verified.returncode, "whole and unchanged" in verified.stdout) == (0, True), verified.stderr
    refused = inspect(damaged, "--verify")
    assert (refused.returncode, "it is cut" in refused.stderr) == (1, True)
    assert "no difference" in inspect(good, "--diff", good).stdout
