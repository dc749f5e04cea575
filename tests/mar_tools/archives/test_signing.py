"""Signatures: only what a trusted key vouches for, byte for byte, is served."""

import os
import shutil
from pathlib import Path

import orjson
import pytest
from conftest import TinyModel

from mar_tools.archives.archive import open_archive
from mar_tools.archives.signing import (
    read_private_key,
    read_public_key,
    sign_archive,
    signature_path,
    write_key_pair,
)
from mar_tools.building.packing import build_archive
from mar_tools.command_line import HANDLERS
from mar_tools.serving.archive_choice import check_registered, choose_archives
from vision_serving.errors import ConfigError


@pytest.fixture
def place(archive: Path, tmp_path: Path) -> Path:
    """A folder with a configuration that trusts one key, and a store with one archive that it signed."""
    (tmp_path / "model_store").mkdir(mode=0o755)
    write_key_pair(tmp_path / "keys" / "ours.key", None)
    (tmp_path / "config.properties").write_text("vision_trusted_keys=keys/*.pub\n")
    copied = Path(shutil.copy(archive, tmp_path / "model_store" / "tiny.mar"))
    copied.chmod(0o644)
    sign_archive(open_archive(copied), read_private_key(tmp_path / "keys" / "ours.key", None))
    return tmp_path


def check(place: Path) -> None:
    """As a registration does it, and as a start, which refuses for the same reason."""
    archive = place / "model_store" / "tiny.mar"
    outcomes: list[ConfigError | None] = []
    for attempt in (
        lambda: check_registered(place / "config.properties", archive.name),
        lambda: choose_archives(place / "config.properties"),
    ):
        try:
            attempt()
            outcomes.append(None)
        except ConfigError as error:
            outcomes.append(error)
    registered, started = outcomes
    assert str(registered) == str(started)
    if started is not None:
        raise started


def edit_signature(place: Path, **changes: str) -> None:
    path = signature_path(place / "model_store" / "tiny.mar")
    path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), **changes}))


def test_what_a_trusted_key_signed_is_served(place: Path) -> None:
    check(place)


def test_what_is_not_signed_is_refused(place: Path) -> None:
    signature_path(place / "model_store" / "tiny.mar").unlink()
    with pytest.raises(ConfigError, match=r"tiny\.mar: not signed \(no tiny\.mar\.sig\)"):
        check(place)


def test_what_another_key_signed_is_refused(place: Path) -> None:
    write_key_pair(place / "other.key", None)
    sign_archive(open_archive(place / "model_store" / "tiny.mar"), read_private_key(place / "other.key", None))
    with pytest.raises(ConfigError, match="which is none of the trusted keys"):
        check(place)


def test_another_archive_under_the_same_signature_is_refused(
    place: Path, tiny_classifier: TinyModel, tmp_path: Path
) -> None:
    other = build_archive(tiny_classifier.folders["eager"], HANDLERS, tmp_path / "other")
    shutil.copy(other, place / "model_store" / "tiny.mar")
    with pytest.raises(ConfigError, match="changed since it was signed"):
        check(place)


@pytest.mark.parametrize(
    ("key", "value"),
    [("sha256", "AAAA"), ("version", "AAAA"), ("model", "AAAA"), ("signature", "AAAA"), ("signature", "größe")],
)
def test_a_signature_that_was_edited_is_refused(place: Path, key: str, value: str) -> None:
    edit_signature(place, **{key: value})
    with pytest.raises(ConfigError, match="its signature is not by"):
        check(place)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"algorithm": "none"}'])
def test_what_is_no_signature_is_refused(place: Path, content: bytes) -> None:
    signature_path(place / "model_store" / "tiny.mar").write_bytes(content)
    with pytest.raises(ConfigError, match=r"tiny\.mar\.sig: "):
        check(place)


def test_a_signature_is_not_read_from_outside_its_folder(
    place: Path,
) -> None:
    path = signature_path(place / "model_store" / "tiny.mar")
    path.rename(place / "real.sig")
    path.symlink_to("../real.sig")
    with pytest.raises(ConfigError, match="a link to a file outside its folder"):
        check(place)
    path.unlink()
    (place / "model_store" / ".data").mkdir()
    (place / "real.sig").rename(place / "model_store" / ".data" / "tiny.mar.sig")
    path.symlink_to(".data/tiny.mar.sig")
    check(place)


def test_keys_that_are_not_there_are_named(place: Path) -> None:
    (place / "keys" / "ours.pub").unlink()
    with pytest.raises(ConfigError, match="names no file"):
        check(place)


@pytest.mark.parametrize("mode", [0o020, 0o002], ids=["group", "world"])
@pytest.mark.parametrize(
    "name", [".", "config.properties", "keys", "keys/ours.pub", "model_store", "model_store/tiny.mar"]
)
def test_what_others_can_change_is_refused_with_its_mode(place: Path, name: str, mode: int) -> None:
    (place / name).chmod((place / name).stat().st_mode | mode)
    with pytest.raises(ConfigError, match=r"others may write here \(mode [0-7]+\).*chmod go-w") as caught:
        check(place)
    assert str(caught.value).startswith(f"{place / name}: ")


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("name", [".", "config.properties", "keys", "keys/ours.pub", "model_store/tiny.mar"])
def test_what_belongs_to_another_user_is_refused_with_its_owner(place: Path, name: str) -> None:
    os.chown(place / name, 12345, -1)
    with pytest.raises(ConfigError, match=r"owned by another user \(12345\).*chown it"):
        check(place)


def test_links_are_followed_through_every_folder_that_they_lead_through(place: Path) -> None:
    """The name, the link in between and the file lie in three folders; the one in between is open to others."""
    for folder in ("between", "vault/deep"):
        (place / folder).mkdir(parents=True)
    archive = place / "model_store" / "tiny.mar"
    archive.rename(place / "vault" / "deep" / "tiny.mar")
    (place / "between" / "link.mar").symlink_to("../vault/deep/tiny.mar")
    archive.symlink_to("../between/link.mar")
    check(place)
    for folder in ("between", "vault", "vault/deep"):
        (place / folder).chmod(0o777)
        with pytest.raises(ConfigError, match=f"{place / folder}: others may write here"):
            check(place)
        (place / folder).chmod(0o755)


def test_links_in_a_circle_and_files_that_are_gone_are_named(place: Path) -> None:
    key = place / "keys" / "ours.pub"
    key.unlink()
    key.symlink_to("ours.pub")
    with pytest.raises(ConfigError, match=r"ours\.pub: cannot be read"):
        check(place)


def test_a_folder_where_each_removes_only_their_own_is_safe_as_tmp_is(place: Path) -> None:
    (place / "model_store").chmod(0o1777)
    check(place)


def test_an_archive_from_elsewhere_is_not_registered(place: Path) -> None:
    with pytest.raises(ConfigError, match="only what is signed there is served"):
        check_registered(place / "config.properties", "https://example.org/other.mar")


def test_a_private_key_is_for_its_owner_alone_and_never_overwritten(tmp_path: Path) -> None:
    private = tmp_path / "a.key"
    write_key_pair(private, b"secret")
    assert private.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match="never overwritten"):
        write_key_pair(private, None)
    with pytest.raises(ConfigError, match="another passphrase"):
        read_private_key(private, b"wrong")
    with pytest.raises(ConfigError, match="passphrase"):
        read_private_key(private, None)
    read_private_key(private, b"secret")
    os.chmod(private, 0o644)
    with pytest.raises(ConfigError, match="others may read"):
        read_private_key(private, b"secret")


def test_the_public_key_does_not_take_the_place_of_the_private_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the name of the public key"):
        write_key_pair(tmp_path / "release.pub", None)
    assert list(tmp_path.iterdir()) == []


def test_keys_may_lie_elsewhere(place: Path) -> None:
    (place / "config.properties").write_text(f"vision_trusted_keys={place}/keys/*.pub\n")
    check(place)


def test_an_archive_that_is_not_there_leaves_the_signed_ones_served(place: Path) -> None:
    with (place / "config.properties").open("a") as config:
        config.write("load_models=gone.mar,tiny.mar\n")
    choice = choose_archives(place / "config.properties")
    assert list(choice.served) == ["tiny.mar"]
    assert "no such archive" in choice.left_out["gone.mar"]


def test_a_key_file_that_is_not_there_is_named_with_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.pub: no such file; expected a public key"):
        read_public_key(tmp_path / "none.pub")
