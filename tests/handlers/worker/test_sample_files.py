"""The ring of files: it has a limit whoever writes, it forgets, and what fails is an OSError and no torn ring."""

import json
import os
import resource
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vision_serving.worker.sample_files import (
    PICTURES,
    SampledPicture,
    SampleFiles,
    hold,
    list_files,
    measure_pictures,
    pictures_of,
    tidy_samples,
)
from vision_serving.worker.sample_settings import SampleBounds

KIB = 1 << 10
SMALL = SampleBounds(64 * KIB, days=30)
DAY_US = 86_400_000_000
WRITE = """
import sys
from pathlib import Path
from vision_serving.worker.sample_files import SampledPicture, SampleFiles
from vision_serving.worker.sample_settings import SampleBounds
files = SampleFiles(Path(sys.argv[1]), SampleBounds(int(sys.argv[2]), 30))
for number in range(int(sys.argv[3])):
    files.append(b'{"writer": %d, "number": %d, "filling": "%s"}\\n' % (int(sys.argv[4]), number, b"x" * 200))
"""


def bytes_in(folder: Path) -> int:
    """Return what lines and pictures take, pictures in whole blocks."""
    lines = sum(path.stat().st_size for path in list_files(folder))
    pictures = [SampledPicture(path.name, path.read_bytes()) for path in folder.glob(f"{PICTURES}/*/*")]
    return lines + measure_pictures(pictures)


def lines_in(folder: Path) -> list[bytes]:
    return [line for path in list_files(folder) for line in path.read_bytes().splitlines()]


def test_a_full_ring_loses_its_oldest_lines_and_never_passes_its_limit(tmp_path: Path) -> None:
    files, folder = SampleFiles(tmp_path / "samples" / "digits", SMALL), tmp_path / "samples" / "digits"
    for number in range(2000):
        files.append(b"%04d %s\n" % (number, b"x" * 100))
        if number % 50 == 0:
            assert bytes_in(folder) <= SMALL.most_bytes
    numbers = [int(line[:4]) for line in lines_in(folder)]
    assert numbers == list(range(numbers[0], 2000))
    assert bytes_in(folder) > SMALL.most_bytes * 3 / 4


def test_pictures_count_and_go_with_their_lines(tmp_path: Path) -> None:
    folder = tmp_path / "samples" / "digits"
    files = SampleFiles(folder, SMALL)
    for number in range(40):
        files.append(b"%04d\n" % number, [SampledPicture(f"{number}.png", bytes(3000))])
        assert bytes_in(folder) <= SMALL.most_bytes
    named = {f"{int(line)}.png" for line in lines_in(folder)}
    assert {path.name for path in folder.glob(f"{PICTURES}/*/*")} == named
    assert len(named) > 8


def test_a_picture_as_large_as_the_ring_does_not_fit(tmp_path: Path) -> None:
    files = SampleFiles(tmp_path / "digits", SMALL)
    assert files.fits([SampledPicture("a.png", bytes(8 * KIB))])
    assert not files.fits([SampledPicture("a.png", bytes(8 * KIB + 1))])


def test_all_of_it_is_for_one_user_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        SampleFiles(tmp_path / "samples" / "digits", SMALL).append(b"1\n", [SampledPicture("a.png", b"1")])
    finally:
        os.umask(old)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "samples").rglob("*")}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}


def test_several_processes_share_a_ring_and_tear_no_line(tmp_path: Path) -> None:
    folder, limit, count = tmp_path / "digits", 256 * KIB, 1500
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITE, str(folder), str(limit), str(count), str(number)])
        for number in range(3)
    ]
    while any(writer.poll() is None for writer in writers):
        if folder.is_dir():
            with hold(folder):  # nobody writes meanwhile
                assert bytes_in(folder) <= limit
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    lines = [json.loads(line) for line in lines_in(folder)]
    for writer in range(3):
        numbers = [line["number"] for line in lines if line["writer"] == writer]
        assert numbers == list(range(count - len(numbers), count)), "the newest, without a gap"
    assert len(lines) * 230 > limit / 2


def test_another_process_goes_on_where_one_was_killed(tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    SampleFiles(folder, SMALL).append(b"before\n")
    (folder / ".lock").write_text("rubbish")
    SampleFiles(folder, SMALL).append(b"after\n")
    assert sorted(lines_in(folder)) == [b"after", b"before"]


def test_what_is_too_old_goes_also_of_models_that_nobody_serves(tmp_path: Path) -> None:
    now_us = int(time.time() * 1e6)
    for days in (29, 31):
        path = tmp_path / "gone" / f"{now_us - days * DAY_US}-1.jsonl"
        pictures_of(path).mkdir(parents=True)
        path.write_bytes(b"1\n")
        (pictures_of(path) / "a.png").write_bytes(b"1")
    (tmp_path / "gone" / PICTURES / "1-1").mkdir()  # whose lines are gone
    tidy_samples(tmp_path, SMALL)
    [left] = list_files(tmp_path / "gone")
    assert left.name == f"{now_us - 29 * DAY_US}-1.jsonl"
    assert list((tmp_path / "gone" / PICTURES).iterdir()) == [pictures_of(left)]


def test_a_file_is_left_after_a_day_so_that_its_lines_grow_no_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "digits"
    files = SampleFiles(folder, SMALL)
    files.append(b"1\n")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86_401)
    files.append(b"2\n")
    assert len(list_files(folder)) == 2
    monkeypatch.setattr(time, "time", lambda: now + 30 * 86_400 + 10)
    files.tidy()
    assert lines_in(folder) == [b"2"]


@pytest.mark.parametrize("removed", ["model", "all", "files"])
def test_whoever_removes_samples_by_hand_disturbs_no_writer(tmp_path: Path, removed: str) -> None:
    folder = tmp_path / "samples" / "digits"
    files = SampleFiles(folder, SMALL)
    files.append(b"1\n", [SampledPicture("a.png", b"1")])
    if removed == "files":
        for path in list_files(folder):
            path.unlink()
    else:
        shutil.rmtree(folder if removed == "model" else folder.parent)
    files.append(b"2\n", [SampledPicture("b.png", b"2")])
    assert lines_in(folder) == [b"2"]


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may have more than 1 KiB, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (KIB, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_line_that_is_cut_is_an_error_and_the_next_one_is_whole(tmp_path: Path, small_files: None) -> None:
    files = SampleFiles(tmp_path / "digits", SMALL)
    with pytest.raises(OSError, match=r"No space left|File too large"):
        files.append(b"x" * 2000 + b"\n")
    files.append(b"whole\n")
    assert b"whole" in lines_in(tmp_path / "digits")


def fill(files: SampleFiles) -> None:
    for number in range(64):
        files.append(b"x" * KIB + b"\n", [SampledPicture(f"{number}.png", bytes(KIB))])


def test_a_full_disk_is_an_error_until_there_is_room_again(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        files = SampleFiles(tmp_path / "samples" / "digits", SampleBounds(1 << 20, days=30))
        files.append(b"before\n")
        (tmp_path / "filling").write_bytes(bytes(48 * KIB))
        with pytest.raises(OSError, match="No space left"):
            fill(files)
        (tmp_path / "filling").unlink()
        files.append(b"after\n")
        assert {lines_in(tmp_path / "samples" / "digits")[place] for place in (0, -1)} == {b"before", b"after"}
        pictures = [path.stat().st_size for path in tmp_path.glob(f"samples/digits/{PICTURES}/*/*")]
        assert set(pictures) == {KIB}, "none is torn"
        files.close()
    finally:
        subprocess.run(["umount", tmp_path], check=True)
