"""A server's files in a backup, and back: whole, in their places, with their permissions."""

import json
import lzma
import os
import tarfile
from pathlib import Path

import pytest
from conftest import RunHere

from mar_tools.command_line import ROOT
from mar_tools.upkeep.backups import Places, restore, save
from vision_serving.errors import ConfigError

FRONT_YAML = ROOT / "deploy/nginx/front.yaml"


def lay_out(folder: Path, text: str) -> Path:
    """Lay out what a server has beside its settings; return these."""
    config = folder / "config.properties"
    places = Places.of(config, text)
    files = {
        config: text,
        folder / "log4j2.xml": "<Configuration/>",
        folder / "keys" / "team.pub": "public",
        folder / "keys" / "team.key": "the private key that signs",
        folder / "keys" / "spare.pub": "public too",
        places.store / "digits.mar": "archive",
        places.store / "digits.mar.sig": "signature",
        places.store / "notes.txt": "no archive",
        places.state / "front" / "clients.map": '"abc" "camera-7";',
        places.state / "front" / "certificate.key": "private",
        places.state / "front" / "local" / "own.conf": "allow all;",
        places.state / "upgrades.json": "{}",
        places.state / "samples" / "digits" / "1.jsonl": "{}",
        places.state / "key_file.json": "token",
        places.state / "logs" / "ts_log.log": "line",
    }
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o600 if path.parent.name == "front" else 0o644)
    return config


@pytest.mark.parametrize(
    "text",
    [
        "vision_trusted_keys=keys/*.pub\n",
        "model_store=models\nvision_state=state\nvision_trusted_keys=keys/team.pub, keys/spare.pub\n",
    ],
    ids=["beside the settings", "in places of their own"],
)
def test_a_server_comes_back_elsewhere(text: str, tmp_path: Path, run_here: RunHere) -> None:
    config = lay_out(tmp_path / "here", text)
    backup, there = tmp_path / "vision.tar", tmp_path / "there" / "config.properties"
    done = run_here("back_up.py", "save", backup, "--config", config)
    assert done.returncode == 0, done.stderr
    assert backup.stat().st_mode & 0o777 == 0o600
    front_yaml = FRONT_YAML.read_bytes()
    done = run_here("back_up.py", "restore", backup, "--config", there)
    assert done.returncode == 0, done.stderr
    assert FRONT_YAML.read_bytes() == front_yaml
    before, after = Places.of(config, text), Places.of(there, there.read_text())
    assert there.read_text() == text
    assert (after.store / "digits.mar").read_text() == "archive"
    assert (after.store / "digits.mar.sig").read_text() == "signature"  # without it, no machine with keys serves it
    for kept in ("clients.map", "certificate.key", "local/own.conf"):
        old, new = before.state / "front" / kept, after.state / "front" / kept
        assert (new.read_text(), new.stat().st_mode) == (old.read_text(), old.stat().st_mode)
    (tmp_path / "ordinary").mkdir()
    for folder in (after.store, there.parent / "keys"):
        assert folder.stat().st_mode == (tmp_path / "ordinary").stat().st_mode
    assert (after.state / "front").stat().st_mode & 0o777 == 0o700
    assert {path.name for path in (there.parent / "keys").iterdir()} == {"team.pub", "spare.pub"}
    names = {path.name for path in there.parent.rglob("*")}
    assert not names & {"team.key", "notes.txt", "key_file.json", "ts_log.log", "1.jsonl"}


def test_samples_go_along_where_they_are_asked_for(tmp_path: Path) -> None:
    config = lay_out(tmp_path, "")
    assert "state/samples/digits/1.jsonl" in save(config, tmp_path / "vision.tar", samples=True).files


def test_keys_that_lie_elsewhere_stay_there(tmp_path: Path) -> None:
    config = lay_out(tmp_path / "here" / "settings", "vision_trusted_keys=../keys/*.pub,keys/../keys/team.pub\n")
    (tmp_path / "here" / "keys").mkdir()
    (tmp_path / "here" / "keys" / "other.pub").write_text("public")
    save(config, tmp_path / "vision.tar", samples=False)
    restored = restore(tmp_path / "vision.tar", tmp_path / "there" / "config.properties", force=False)
    assert [name for name in restored if name.endswith(".pub")] == ["settings/keys/team.pub"]


def test_a_sample_that_the_server_removes_meanwhile_spoils_no_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, listed = lay_out(tmp_path, ""), Places.list_files
    sample = tmp_path / "samples" / "digits" / "1.jsonl"

    def list_then_remove(places: Places, samples: bool) -> list[tuple[str, Path]]:
        files = list(listed(places, samples))
        sample.unlink()
        return files

    monkeypatch.setattr(Places, "list_files", list_then_remove)
    saved = save(config, tmp_path / "vision.tar", samples=True)
    assert "models/digits.mar" in saved.files
    assert "state/samples/digits/1.jsonl" not in saved.files


@pytest.mark.parametrize(
    ("place", "said"), [("", "a folder; expected the file to write"), ("none/vision.tar", "no such folder; make it")]
)
def test_a_place_that_takes_no_backup_is_told(place: str, said: str, tmp_path: Path) -> None:
    config = lay_out(tmp_path, "")
    with pytest.raises(ConfigError, match=said):
        save(config, tmp_path / place, samples=False)


def test_a_device_is_no_place_for_a_backup(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match=f"{pipe}: no ordinary file"):
        save(lay_out(tmp_path, ""), pipe, samples=False)
    assert pipe.is_fifo()


@pytest.mark.parametrize("obstacle", ["a file for the store", "a folder for an archive"])
def test_what_cannot_be_restored_as_a_whole_changes_nothing(tmp_path: Path, obstacle: str) -> None:
    save(lay_out(tmp_path / "here", ""), tmp_path / "vision.tar", samples=False)
    there = tmp_path / "there"
    there.mkdir()
    if obstacle == "a file for the store":
        (there / "model_store").touch()
    else:
        (there / "model_store" / "digits.mar").mkdir(parents=True)
    with pytest.raises((OSError, ConfigError), match="model_store"):
        restore(tmp_path / "vision.tar", there / "config.properties", force=True)
    assert [path for path in there.rglob("*") if path.is_file() and path.name != "model_store"] == []


def test_other_files_are_replaced_by_force_alone(tmp_path: Path, run_here: RunHere) -> None:
    config = lay_out(tmp_path, "")
    run_here("back_up.py", "save", tmp_path / "vision.tar", "--config", config)
    archive = tmp_path / "model_store" / "digits.mar"
    archive.write_text("a newer one")
    done = run_here("back_up.py", "restore", tmp_path / "vision.tar", "--config", config)
    assert done.returncode == 1
    assert f"there with another content: {archive}; --force replaces them" in done.stderr
    assert archive.read_text() == "a newer one"
    done = run_here("back_up.py", "restore", tmp_path / "vision.tar", "--config", config, "--force", "--json")
    assert json.loads(done.stdout)["models/digits.mar"] == str(archive)
    assert archive.read_text() == "archive"


def test_a_damaged_backup_changes_nothing(tmp_path: Path) -> None:
    config = lay_out(tmp_path / "here", "")
    save(config, tmp_path / "vision.tar", samples=False)
    content = (tmp_path / "vision.tar").read_bytes()
    at = content.index(b"camera-7")
    (tmp_path / "vision.tar").write_bytes(content[:at] + b"camera-8" + content[at + 8 :])
    with pytest.raises(ConfigError, match=r"state/front/clients\.map is damaged or missing"):
        restore(tmp_path / "vision.tar", tmp_path / "there" / "config.properties", force=True)
    assert list((tmp_path / "there").iterdir()) == []
    (tmp_path / "vision.tar").write_bytes(content[:2000])
    with pytest.raises(ConfigError, match="no backup, or a damaged one"):
        restore(tmp_path / "vision.tar", tmp_path / "there" / "config.properties", force=True)


@pytest.mark.parametrize("name", ["state/../../evil", "/etc/evil", "state", "other/file", "settings/../x"])
def test_no_file_leaves_its_place(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no file of a backup"):
        Places.of(tmp_path / "config.properties", "").path_of(name)


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "link"])
def test_a_backup_that_somebody_made_writes_nothing_elsewhere(name: str, tmp_path: Path) -> None:
    entry = tarfile.TarInfo(name)
    if name == "link":
        entry.type, entry.linkname = tarfile.SYMTYPE, str(tmp_path)
    with tarfile.open(tmp_path / "vision.tar", "w") as made:
        made.addfile(entry)
    with pytest.raises(ConfigError, match=f"a damaged one \\({name} is no plain file within it\\)"):
        restore(tmp_path / "vision.tar", tmp_path / "there" / "config.properties", force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there", "vision.tar"]
    assert list((tmp_path / "there").iterdir()) == []


def test_a_damaged_one_that_somebody_compressed_is_refused_too(tmp_path: Path) -> None:
    save(lay_out(tmp_path, ""), tmp_path / "vision.tar", samples=False)
    content = bytearray(lzma.compress((tmp_path / "vision.tar").read_bytes()))
    content[len(content) // 2] ^= 1
    (tmp_path / "vision.tar").write_bytes(content)
    with pytest.raises(ConfigError, match="no backup, or a damaged one"):
        restore(tmp_path / "vision.tar", tmp_path / "there" / "config.properties", force=False)


def test_what_is_no_backup_is_refused(tmp_path: Path, run_here: RunHere) -> None:
    with tarfile.open(tmp_path / "other.tar", "w") as other:
        other.add(FRONT_YAML, "front.yaml")
    done = run_here("back_up.py", "list", tmp_path / "other.tar")
    assert done.returncode == 1
    assert "backup.json" in done.stderr
