"""The front's log is counted once, through rotations, cut lines and a new exporter."""

from pathlib import Path

import orjson
import pytest

from mar_tools.monitoring.front_log import STATE, FrontLog

LINE = {"client": "camera", "status": 200, "seconds": 0.02, "bytes_in": 10, "bytes_out": 20, "tries": "200"}


def write(log: Path, count: int = 1, **changes: object) -> None:
    with log.open("ab") as file:
        file.write((orjson.dumps({**LINE, **changes}) + b"\n") * count)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "access.log"
    write(path, 5)  # from before the first exporter
    return path


def counted(front: FrontLog) -> int:
    front.read()
    return sum(front.answers.values())


def test_lines_that_are_written_from_now_on_count(log: Path, tmp_path: Path) -> None:
    front = FrontLog(log, tmp_path)
    write(log, 2)
    write(log, client="", status=401, tries="")
    write(log, tries="507 : 200")
    front.read()
    assert front.answers == {("camera", "200"): 3, ("none", "401"): 1}
    assert (sum(front.buckets.values()), front.second_tries) == (3, 1)


def test_a_log_that_was_rotated_or_shortened_is_read_on(log: Path, tmp_path: Path) -> None:
    front = FrontLog(log, tmp_path)
    write(log)
    assert counted(front) == 1
    write(log)
    log.rename(tmp_path / "access.log.1")
    assert counted(front) == 2
    write(tmp_path / "access.log.1")  # nginx does until it is told
    write(log, 3)
    assert counted(front) == 6
    log.write_bytes(b"")
    assert counted(front) == 6
    write(log)
    assert counted(front) == 7


def test_a_line_that_is_cut_waits_for_its_end_and_nonsense_is_passed_over(log: Path, tmp_path: Path) -> None:
    front, line = FrontLog(log, tmp_path), orjson.dumps(LINE)
    with log.open("ab") as file:
        file.write(b"\xff nonsense\n[]\n{}\n" + line[:20])
    assert counted(front) == 0
    with log.open("ab") as file:
        file.write(line[20:] + b"\n")
    assert counted(front) == 1


def test_a_new_exporter_goes_on_where_the_one_before_ended(log: Path, tmp_path: Path) -> None:
    front = FrontLog(log, tmp_path)
    write(log, 2, seconds=99)
    assert counted(front) == 2
    write(log)
    other = FrontLog(log, tmp_path)
    assert counted(other) == 3
    assert other.buckets == {float("inf"): 2, 0.025: 1}


def test_a_front_that_has_logged_nothing_yet_has_no_counts(tmp_path: Path) -> None:
    front = FrontLog(tmp_path / "access.log", tmp_path)
    assert counted(front) == 0
    write(tmp_path / "access.log")
    assert counted(front) == 1


@pytest.mark.parametrize(
    "state",
    [b"", b"{}", b"[]", b"null", b"\xff", b'{"answers": 1}', b'{"answers": [], "bytes_in": [1]}'],
)
def test_a_state_that_is_damaged_begins_anew(log: Path, tmp_path: Path, state: bytes) -> None:
    (tmp_path / STATE).write_bytes(state)
    front = FrontLog(log, tmp_path)
    write(log, 2)
    assert counted(front) == 2
    assert counted(FrontLog(log, tmp_path)) == 2


def test_a_full_disk_costs_no_count(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    front = FrontLog(log, tmp_path)
    write(log, 2)
    with monkeypatch.context() as patch:
        patch.setattr("mar_tools.monitoring.front_log.os.replace", fail)
        assert counted(front) == 2
    write(log)
    assert counted(front) == counted(FrontLog(log, tmp_path)) == 3
