"""The counters that HotSpot keeps of a Java, as `jstat` reads them: written here to the letter of their format."""

import os
import struct
from pathlib import Path

import psutil
import pytest

from mar_tools.serving import java_counters
from mar_tools.serving.java_counters import collecting_s, read_counters

FREQUENCY = "sun.os.hrt.frequency"
COUNTERS = {
    FREQUENCY: 1_000_000, "sun.gc.collector.0.time": 250_000, "sun.gc.collector.1.time": 12_000_000,
    "sun.gc.collector.1.invocations": 77, "sun.gc.generation.0.time": 5_000_000,
}  # fmt: skip


def write_counters(counters: dict[str, int], order: str = "<", text: bytes = b"Serial") -> bytes:
    """HotSpot's format 2: a header of 32 bytes; entries of 20 with their name and their value behind them."""
    entries = b""
    for name, value in {**counters, "sun.gc.policy.name": text}.items():
        is_text = isinstance(value, bytes)
        names = name.encode() + b"\0" * (8 - len(name) % 8)
        data = value if isinstance(value, bytes) else struct.pack(f"{order}q", value)
        kind = b"B" if is_text else b"J"
        head = (20 + len(names) + len(data), 20, len(data) * is_text, kind, 0, 1, 1, 20 + len(names))
        entries += struct.pack(f"{order}IIIcBBBI", *head) + names + data
    flags = (0xCAFEC0C0).to_bytes(4, "big") + bytes([order == "<", 2, 0, 1])
    return flags + struct.pack(f"{order}IIqII", 32 + len(entries), 0, 0, 32, len(counters) + 1) + entries


@pytest.mark.parametrize("order", "<>")
def test_whole_numbers_are_read_by_name(order: str) -> None:
    assert read_counters(write_counters(COUNTERS, order)) == COUNTERS


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of this process, which is no Java."""
    monkeypatch.setattr(java_counters, "Path", lambda path: tmp_path)
    path = tmp_path / "hsperfdata_somebody" / str(os.getpid())
    path.parent.mkdir()
    return path


def test_the_time_of_all_collectors_is_summed(own: Path) -> None:
    own.write_bytes(write_counters(COUNTERS))
    assert collecting_s(psutil.Process()) == 12.25


WHOLE = write_counters(COUNTERS)


@pytest.mark.parametrize(
    "data",
    [None, b"", bytes(32), WHOLE[:20], WHOLE[:60], WHOLE[:-40], write_counters({}), write_counters({FREQUENCY: 0})],
    ids=["none", "empty", "begun", "a header cut", "a name cut", "a value cut", "other counters", "no frequency yet"],
)
def test_a_java_that_keeps_no_counters_does_not_say(own: Path, data: bytes | None) -> None:
    if data is not None:
        own.write_bytes(data)
    assert collecting_s(psutil.Process()) is None
