"""The command as a process of its own, with an archive: what a death leaves, and what goes on from it."""

import resource
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import orjson
import psutil
import pytest
from conftest import RunHere
from offline_runs import (
    BROKEN,
    COMMAND,
    COUNT,
    PATIENCE_S,
    expected_rows,
    finish,
    read_rows,
    start,
    wait_for_shards,
    write_photos,
)
from PIL import Image

from mar_tools.predicting import trial
from mar_tools.waiting import wait_until

SMALL = ("--processes", "1", "--batch-size", "8")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", COUNT, (40, 30))


def workers_of(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children():
        with suppress(psutil.Error):  # one that has died meanwhile
            if "mar_tools.predicting.local_worker" in child.cmdline():
                found.append(child)
    return found


def test_every_picture_has_one_row_though_a_worker_and_then_the_whole_run_are_killed(
    odd_archive: Path, photos: Path, gate: Path, tmp_path: Path, run_here: RunHere
) -> None:
    output = tmp_path / "rows"
    run = ("--archive", odd_archive, photos, "--format", "parquet", "--output", output, *SMALL)
    first = start(*run)
    wait_for_shards(output, 1)
    [worker] = workers_of(first)
    kept = len(list(output.glob("part-*")))
    worker.kill()
    assert wait_until(lambda: any(each != worker for each in workers_of(first)), PATIENCE_S)
    [other] = workers_of(first)
    first.kill()
    first.wait()
    assert wait_until(lambda: not other.is_running(), PATIENCE_S), "nobody asks it for anything any more"
    assert len(list(output.glob("part-*"))) == kept
    gate.unlink()
    refused = run_here(COMMAND, *run)
    assert (refused.returncode, "it holds results, which nothing replaces; give --resume" in refused.stderr) == (
        1,
        True,
    )
    resumed = run_here(COMMAND, *run, "--resume")
    assert resumed.returncode == 1
    assert f"{COUNT} rows in {output}" in resumed.stderr
    assert f"{BROKEN} of {COUNT} images failed" in resumed.stderr
    allowed = run_here(COMMAND, *run, "--resume", "--allow-failed")
    assert (allowed.returncode, f"{BROKEN} of {COUNT} images failed" in allowed.stderr) == (0, True)
    assert read_rows(output) == expected_rows(photos)
    left = [path.name for path in tmp_path.iterdir()]
    assert sorted(left) == ["photos", "rows"]


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(
    odd_archive: Path, photos: Path, gate: Path, tmp_path: Path, run_here: RunHere
) -> None:
    output = tmp_path / "rows.jsonl"
    run = ("--archive", odd_archive, photos, "--json", "--output", output, *SMALL)
    process = start(*run, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    wait_for_shards(tmp_path / "rows.jsonl.parts", 1)
    workers = workers_of(process)
    process.send_signal(signal.SIGINT)
    status, said = finish(process)
    assert status == 130
    assert f"rows are kept in {output}.parts; --resume goes on" in said
    assert "Traceback" not in said
    assert workers
    assert not any(worker.is_running() for worker in workers)
    gate.unlink()
    assert run_here(COMMAND, *run, "--resume").returncode == 1
    assert read_rows(output) == expected_rows(photos)


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(
    odd_archive: Path, photos: Path, gate: Path, tmp_path: Path, run_here: RunHere
) -> None:
    """A limit on the size of files fails as a full disk does."""
    output = tmp_path / "rows.jsonl"
    run = ("--archive", odd_archive, photos, "--json", "--output", output, *SMALL)
    process = start(*run)
    wait_for_shards(tmp_path / "rows.jsonl.parts", 1)
    [worker] = workers_of(process)
    worker.rlimit(psutil.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    gate.unlink()
    status, said = finish(process)
    assert status == 1
    assert f"error: {output}.parts: File too large" in said
    assert "Traceback" not in said
    assert run_here(COMMAND, *run, "--resume").returncode == 1
    assert read_rows(output) == expected_rows(photos)


def test_a_picture_that_ends_its_process_is_a_row_and_loses_no_other(
    odd_archive: Path, tmp_path: Path, run_here: RunHere
) -> None:
    photos, output = tmp_path / "photos", tmp_path / "rows.jsonl"
    photos.mkdir()
    for name, colour in {"a": "gray", "b": "white"}.items():
        Image.new("RGB", (40, 30), colour).save(photos / f"{name}.png")
    finished = run_here(COMMAND, "--archive", odd_archive, photos, "--json", "--output", output, *SMALL)
    assert (finished.returncode, "1 of 2 images failed" in finished.stderr) == (1, True), finished.stderr
    rows = [orjson.loads(line) for line in output.read_bytes().splitlines()]
    assert ["classes" in row for row in rows] == [True, False]
    assert rows[1]["message"].startswith("ends the process: crashed: signal SIGKILL")


def test_the_trial_chooses_processes_and_its_results_are_kept(
    archive: Path, tmp_path: Path, run_here: RunHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "FEW", 0)
    monkeypatch.setattr(trial, "TRIAL_S", 0.1)
    photos, output = write_photos(tmp_path / "photos", 120, (1200, 900)), tmp_path / "found.csv"
    finished = run_here(COMMAND, "--archive", archive, photos, "--format", "csv", "--output", output)
    assert finished.returncode == 1
    assert "12 of 120 images failed" in finished.stderr
    files = [line.partition(",")[0] for line in output.read_text().splitlines()[1:]]
    assert list(dict.fromkeys(files)) == [name for name, _ in expected_rows(photos)]


def test_a_wrong_option_is_told_before_anything_is_written(
    archive: Path, photos: Path, tmp_path: Path, run_here: RunHere
) -> None:
    run = ("--archive", archive, photos, "--json", "--output", tmp_path / "rows", *SMALL, "--option", "topk=1")
    finished = run_here(COMMAND, *run)
    assert (finished.returncode, finished.stderr.startswith("error: unknown option 'topk'")) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
