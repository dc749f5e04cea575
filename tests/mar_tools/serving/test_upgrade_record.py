"""What may be taken back, and what is no longer what it was."""

from pathlib import Path

import pytest

from mar_tools.serving.upgrade_record import ServedArchive, UpgradeRecord, check_can_return, read_upgrade
from vision_serving.errors import ConfigError
from vision_serving.worker.model_card import digest_file


@pytest.fixture
def record(tmp_path: Path) -> UpgradeRecord:
    (tmp_path / "a.mar").write_bytes(b"before")
    old = ServedArchive(version="1.0", archive="a.mar", sha256=digest_file(tmp_path / "a.mar"))
    new = ServedArchive(version="2.0", archive="b.mar", sha256="")
    return UpgradeRecord(at="2026-01-01T00:00:00+00:00", old=old, new=new, written=True)


def test_what_is_there_as_it_was_may_return(record: UpgradeRecord, tmp_path: Path) -> None:
    check_can_return(record, "a", tmp_path, {"modelVersion": "2.0"})


def test_an_upgrade_that_was_followed_by_something_else_stays(record: UpgradeRecord, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a 3\.0 is served, and the last upgrade known"):
        check_can_return(record, "a", tmp_path, {"modelVersion": "3.0"})


def test_an_archive_that_is_gone_or_another_is_named(record: UpgradeRecord, tmp_path: Path) -> None:
    (tmp_path / "a.mar").write_bytes(b"another")
    with pytest.raises(ConfigError, match=r"another file than the one that served a 1\.0"):
        check_can_return(record, "a", tmp_path, {"modelVersion": "2.0"})
    (tmp_path / "a.mar").unlink()
    with pytest.raises(ConfigError, match=r"not there any more; put a 1\.0 back"):
        check_can_return(record, "a", tmp_path, {"modelVersion": "2.0"})


def test_a_model_that_was_never_upgraded_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.properties").write_text("model_store=store\n")
    with pytest.raises(ConfigError, match="no upgrade of 'digits' to take back"):
        read_upgrade(tmp_path / "config.properties", "digits")
