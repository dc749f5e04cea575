"""The command as a process of its own, with an archive: what a death leaves, and what goes on from it."""

import io
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import psutil
import pyarrow.parquet as pq
import pytest
from conftest import OncePerRun, write_tiny_recipe
from fakes import TINY_CLASSIFIER
from PIL import Image

from mar_tools.building.packing import build_archive
from mar_tools.command_line import ROOT
from mar_tools.exporting.export import export_model
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import read_recipe
from mar_tools.verification.gate import verify_export
from mar_tools.waiting import wait_until

COUNT, BROKEN_EVERY = 300, 50
BROKEN = COUNT // BROKEN_EVERY
PATIENCE_S = 60.0
SMALL = ("--processes", "1", "--batch-size", "8")


@pytest.fixture(scope="session")
def large_pictures() -> list[bytes]:
    """Which take so long to decode that something can happen meanwhile."""
    pictures = []
    for shade in range(0, 250, 50):
        encoded = io.BytesIO()
        Image.new("RGB", (1600, 1200), (shade, 255 - shade, 9)).save(encoded, "PNG", compress_level=1)
        pictures.append(encoded.getvalue())
    return pictures


@pytest.fixture
def photos(tmp_path: Path, large_pictures: list[bytes]) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(COUNT):
        is_broken = number % BROKEN_EVERY == BROKEN_EVERY - 1
        content = b"no picture" if is_broken else large_pictures[number % len(large_pictures)]
        (folder / f"{number:04}.png").write_bytes(content)
    return folder


def start(*arguments: object, **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, str(ROOT / "scripts" / "predict_images.py"), *map(str, arguments)]
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


def hang(worker: psutil.Process) -> None:
    """So that what happens next happens in the middle of a chunk, however quick the model is."""
    worker.suspend()


def workers_of(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children():
        with suppress(psutil.Error):  # one that has died meanwhile
            if "mar_tools.predicting.local_worker" in child.cmdline():
                found.append(child)
    return found


def test_every_picture_has_one_row_though_a_worker_and_then_the_whole_run_are_killed(
    archive: Path, photos: Path, tmp_path: Path
) -> None:
    output = shards = tmp_path / "rows"
    run = ("--archive", archive, photos, "--format", "parquet", "--output", output, *SMALL)
    first = start(*run)
    wait_for_shards(shards, 1)
    [worker] = workers_of(first)
    hang(worker)
    kept = len(list(shards.glob("part-*")))
    worker.kill()
    assert wait_until(lambda: any(each != worker for each in workers_of(first)), PATIENCE_S)
    [other] = workers_of(first)
    hang(other)
    first.kill()
    first.wait()
    other.resume()
    assert wait_until(lambda: not other.is_running(), PATIENCE_S), "nobody asks it for anything any more"
    assert len(list(shards.glob("part-*"))) >= kept
    refused = finish(start(*run))
    assert (refused[0], "it holds results, which nothing replaces; give --resume" in refused[1]) == (1, True)
    status, said = finish(start(*run, "--resume"))
    assert status == 1
    assert f"{COUNT} rows in {output}" in said
    assert f"{BROKEN} of {COUNT} images failed" in said
    assert read_rows(output) == expected_rows(photos)
    left = [path.name for path in tmp_path.iterdir()]
    assert sorted(left) == ["photos", "rows"]


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(archive: Path, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "rows.jsonl"
    run = ("--archive", archive, photos, "--json", "--output", output, *SMALL)
    process = start(*run, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    wait_for_shards(tmp_path / "rows.jsonl.parts", 1)
    workers = workers_of(process)
    list(map(hang, workers))
    process.send_signal(signal.SIGINT)
    status, said = finish(process)
    assert status == 130
    assert f"rows are kept in {output}.parts; --resume goes on" in said
    assert "Traceback" not in said
    assert not any(worker.is_running() for worker in workers)
    assert finish(start(*run, "--resume"))[0] == 1
    assert read_rows(output) == expected_rows(photos)


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(
    archive: Path, photos: Path, tmp_path: Path
) -> None:
    """A limit on the size of files fails as a full disk does."""
    output = tmp_path / "rows.jsonl"
    run = ("--archive", archive, photos, "--json", "--output", output, *SMALL)

    process = start(*run)
    wait_for_shards(tmp_path / "rows.jsonl.parts", 1)
    [worker] = workers_of(process)
    worker.rlimit(psutil.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    status, said = finish(process)
    assert status == 1
    assert f"error: {output}.parts: File too large" in said
    assert "Traceback" not in said
    assert finish(start(*run, "--resume"))[0] == 1
    assert read_rows(output) == expected_rows(photos)


DEADLY = TINY_CLASSIFIER.replace(
    "    def forward(self, images):\n",
    "    def forward(self, images):\n"
    "        if not self.training and bool((images.flatten(1).amin(1) > 0.999).any()):\n"
    "            import os\n\n"
    "            os.kill(os.getpid(), 9)\n",
)


@pytest.fixture(scope="session")
def deadly_archive(run_folder: Path, once_per_run: OncePerRun) -> Path:
    """Of a model that a white picture ends, as one that takes all memory would."""
    folder = run_folder / "deadly"

    def build() -> None:
        path = write_tiny_recipe(folder / "recipe", name="deadly")
        (path.parent / "tiny.py").write_text(DEADLY)
        recipe = read_recipe(path)
        export = export_model(recipe, load_checkpoint(recipe), "eager", "fp32", folder / "exports")
        verify_export(export)
        build_archive(export, ROOT / "handlers", folder)

    once_per_run("deadly", build)
    return folder / "deadly.mar"


def test_a_picture_that_ends_its_process_is_a_row_and_loses_no_other(deadly_archive: Path, tmp_path: Path) -> None:
    photos, output = tmp_path / "photos", tmp_path / "rows.jsonl"
    photos.mkdir()
    for name, colour in {"a": "gray", "b": "white"}.items():
        Image.new("RGB", (40, 30), colour).save(photos / f"{name}.png")
    process = start("--archive", deadly_archive, photos, "--json", "--output", output, *SMALL)
    status, said = finish(process)
    assert (status, "1 of 2 images failed" in said) == (1, True), said
    rows = [orjson.loads(line) for line in output.read_bytes().splitlines()]
    assert ["classes" in row for row in rows] == [True, False]
    assert rows[1]["message"].startswith("ends the process: crashed: signal SIGKILL")


def test_the_trial_chooses_processes_and_its_results_are_kept(archive: Path, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "found.csv"
    status, said = finish(start("--archive", archive, photos, "--format", "csv", "--output", output))
    assert status == 1
    assert f"{BROKEN} of {COUNT} images failed" in said
    files = [line.partition(",")[0] for line in output.read_text().splitlines()[1:]]
    assert list(dict.fromkeys(files)) == [name for name, _ in expected_rows(photos)]


def test_a_wrong_option_is_told_before_anything_is_written(archive: Path, photos: Path, tmp_path: Path) -> None:
    run = ("--archive", archive, photos, "--json", "--output", tmp_path / "rows", *SMALL, "--option", "topk=1")
    status, said = finish(start(*run))
    assert (status, said.startswith("error: unknown option 'topk'")) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
