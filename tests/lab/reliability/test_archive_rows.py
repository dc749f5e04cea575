"""Rows C1 and C2 in short: hostile archives of a tiny model are refused, each for its own reason."""

import zlib
from pathlib import Path

import pytest

from lab.hostile.archives import make_hostile_archives
from lab.hostile.raw_zip import RawEntry, write_raw_zip
from lab.reliability.archive_rows import observe_c1, observe_c2
from mar_tools.archives.archive import check_archive, open_archive
from mar_tools.serving.archive_choice import check_registered, choose_archives
from vision_serving.errors import ConfigError

FORM = (  # what no archive may have, whoever built it
    "hidden entry", "other name in the header", "duplicate by case", "path traversal", "absolute path", "backslash",
    "symbolic link", "bomb by ratio", "prefix", "suffix", "bad CRC", "no manifest",
)  # fmt: skip


def test_more_than_thirty_hostile_archives_are_each_refused_for_their_own_reason_within_2_s(archive: Path) -> None:
    found = observe_c1(archive, "")
    assert found.problems == ()
    assert found.measured["archives"] >= 30


def test_a_flip_of_one_byte_anywhere_is_refused(archive: Path) -> None:
    found = observe_c2(archive, 2, "")
    assert found.problems == ()
    assert found.measured["flips"] > 1000


def test_no_policy_serves_what_two_readers_could_read_as_two_things(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "model_store").mkdir()
    path, config = tmp_path / "model_store" / "x.mar", tmp_path / "config.properties"
    config.touch()
    hostile = make_hostile_archives(archive.read_bytes())
    for name in FORM:
        path.write_bytes(hostile[name].data)
        with pytest.raises(ConfigError, match=r"x\.mar"):
            choose_archives(config)
        with pytest.raises(ConfigError, match=r"x\.mar"):
            check_registered(config, "x.mar")


@pytest.mark.parametrize("hidden", [b"", b"hidden"], ids=["as it should be", "with bytes behind its end"])
def test_bytes_behind_deflated_data_are_found_where_they_begin_with_a_block_of_their_own(
    tmp_path: Path, hidden: bytes
) -> None:
    def deflate(size: int) -> bytes:
        deflater = zlib.compressobj(0, wbits=-zlib.MAX_WBITS)
        return deflater.compress(bytes(size)) + deflater.flush()

    block = 1 << 20
    size = next(size for size in range(block - 200, block) if len(deflate(size)) == block)
    both = {"method": 8, "size": size}
    entry = RawEntry("weights.bin", bytes(size), packed=deflate(size) + hidden, both=both)
    manifest = RawEntry("MAR-INF/MANIFEST.json", b'{"model": {"modelName": "x"}}')
    (tmp_path / "x.mar").write_bytes(write_raw_zip([manifest, entry]))
    if not hidden:
        assert check_archive(tmp_path / "x.mar") == ("x", "")
        return
    with pytest.raises(ConfigError, match=r"its entry weights\.bin is damaged"):
        open_archive(tmp_path / "x.mar")
