"""The command as a process of its own, with an archive: what a death leaves, and what goes on from it."""

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import psutil
import pyarrow.parquet as pq
import pytest
from conftest import OncePerRun, RunHere, write_tiny_recipe
from fakes import TINY_CLASSIFIER
from PIL import Image

from mar_tools.building.packing import build_archive
from mar_tools.command_line import ROOT
from mar_tools.exporting.export import export_model
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import read_recipe
from mar_tools.predicting import trial
from mar_tools.verification.gate import verify_export
from mar_tools.waiting import wait_until

COUNT, BROKEN_EVERY, HELD = 60, 10, 20
BROKEN = COUNT // BROKEN_EVERY
PATIENCE_S = 60.0
SMALL = ("--processes", "1", "--batch-size", "8")
COMMAND, GATE = "predict_images.py", "TEST_GATE"
ODD = TINY_CLASSIFIER.replace(
    "    def forward(self, images):\n",
    f"""    def forward(self, images):
        import os
        import time

        pixels = images.flatten(1)
        if not self.training and bool((pixels.amin(1) > 0.999).any()):
            os.kill(os.getpid(), 9)
        while bool((pixels.amax(1) < -1.5).any()) and os.path.exists(os.environ.get({GATE!r}, "")):
            time.sleep(0.02)
""",
)


@pytest.fixture(scope="session")
def odd_archive(run_folder: Path, once_per_run: OncePerRun) -> Path:
    """Of a model that a white picture ends, as one that takes all memory would, and a black one holds at a gate."""
    folder = run_folder / "odd"

    def build() -> None:
        path = write_tiny_recipe(folder / "recipe", name="odd")
        (path.parent / "tiny.py").write_text(ODD)
        recipe = read_recipe(path)
        export = export_model(recipe, load_checkpoint(recipe), "eager", "fp32", folder / "exports")
        verify_export(export)
        build_archive(export, ROOT / "handlers", folder)

    once_per_run("odd", build)
    return folder / "odd.mar"


def write_photos(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Write pictures, of which some are broken and one is black."""
    folder.mkdir()
    for number in range(count):
        file = folder / f"{number:04}.png"
        if number % BROKEN_EVERY == BROKEN_EVERY - 1:
            file.write_bytes(b"no picture")
        else:
            Image.new("RGB", size, "black" if number == HELD else (number, 99, 9)).save(file, compress_level=1)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", COUNT, (40, 30))


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """While it is there, the black picture stays in the model. So what happens meanwhile happens inside a chunk."""
    gate = tmp_path / "gate"
    gate.touch()
    monkeypatch.setenv(GATE, str(gate))
    yield gate
    gate.unlink(missing_ok=True)


def start(*arguments: object, **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, str(ROOT / "scripts" / COMMAND), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    _, said = process.communicate(timeout=PATIENCE_S)
    return process.returncode, said


def read_rows(output: Path) -> list[tuple[str, bool]]:
    """Each path with whether it has an answer, sorted."""
    if output.is_dir():
        rows = pq.read_table(output, columns=["path", "status"]).to_pylist()
        return sorted((row["path"], row["status"] == 200) for row in rows)
    return [(row["file"], "classes" in row) for row in map(orjson.loads, output.read_bytes().splitlines())]


def expected_rows(photos: Path) -> list[tuple[str, bool]]:
    return [(str(file), file.read_bytes() != b"no picture") for file in sorted(photos.iterdir())]


def wait_for_shards(folder: Path, count: int) -> None:
    assert wait_until(lambda: len(list(folder.glob("part-*"))) >= count, PATIENCE_S)


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
