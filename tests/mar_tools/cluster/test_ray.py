"""The command on a cluster of Ray: the rows of this machine, whatever dies meanwhile."""

import os
import resource
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from conftest import RunHere
from offline_runs import BROKEN, COMMAND, COUNT, expected_rows, finish, read_rows, start, wait_for_shards, write_photos
from PIL import Image

from mar_tools.cluster.connecting import TRIES, _start
from mar_tools.command_line import ROOT
from mar_tools.serving.config_file import with_absolute_paths, with_values
from mar_tools.serving.temporary_server import temporary_server
from mar_tools.waiting import wait_until

pytest.importorskip("ray", reason="needs requirements/ray.txt")

PATIENCE_S = 180.0
MANY, BROKEN_OF_MANY = 5000, 50  # the second: every so many
SMALL = ("--engine", "ray", "--batch-size", "8", "--format", "parquet", "--output")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", COUNT, (40, 30))


@pytest.fixture
def three_machines() -> Iterator[Any]:
    """A cluster of three machines of one core each, all on loopback. The gate is known to their processes."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    (Path(os.environ.get("TMPDIR", "/tmp")) / "ray").mkdir(exist_ok=True)
    cluster: Any = Cluster()
    try:
        machine = {"num_cpus": 1, "object_store_memory": 128 * 1024**2}
        add_machine(cluster, **machine, include_dashboard=False)
        cluster.workers = [add_machine(cluster, **machine) for _ in range(2)]
        cluster.wait_for_nodes(PATIENCE_S)
        yield cluster
    finally:
        cluster.shutdown()


def add_machine(cluster: Any, **settings: Any) -> Any:
    """On a busy machine Ray gives up after 30 seconds, a number of its own."""
    for _ in range(2):
        with suppress(Exception):  # it raises no kind of its own
            return cluster.add_node(**settings)
    return cluster.add_node(**settings)


def find_predictors(gate: Path) -> list[psutil.Process]:
    """Find the processes of a cluster that have this test's model."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if "ray::Predictor" in " ".join(process.cmdline()) and process.environ().get("TEST_GATE") == str(gate):
                found.append(process)
    return found


def read_all(output: Path) -> list[dict[str, Any]]:
    return sorted(pq.read_table(output).to_pylist(), key=lambda row: str(row["path"]))


def test_rows_are_those_of_this_machine(odd_archive: Path, photos: Path, tmp_path: Path, run_here: RunHere) -> None:
    Image.new("RGB", (40, 30), "white").save(photos / "0003.png")  # ends the process that predicts it
    results = []
    for number, options in enumerate(((), ("--engine", "ray"))):
        output = tmp_path / f"rows-{number}"
        done = run_here(COMMAND, "--archive", odd_archive, photos, "--format", "parquet", "--output", output, *options)
        assert f"{COUNT} rows in {output}" in done.stderr
        assert f"{BROKEN + 1} of {COUNT} images failed" in done.stderr
        results.append(read_all(output))
    white = [rows.pop(3) for rows in results]
    assert {(row["status"], row["error"]["type"]) for row in white} == {(500, "ProcessLostError")}
    scores = [[found.pop("score") for row in rows for found in row["classes"] or ()] for rows in results]
    assert results[0] == results[1]
    assert scores[0] == pytest.approx(scores[1], abs=2e-6)  # pictures of other batches, so other last digits


def test_a_process_and_then_the_whole_run_are_killed(
    odd_archive: Path, photos: Path, gate: Path, tmp_path: Path, run_here: RunHere
) -> None:
    output = tmp_path / "rows"
    run = ("--archive", odd_archive, photos, *SMALL, output)
    first = start(*run)
    wait_for_shards(output, 1)
    before = find_predictors(gate)
    for process in before:
        process.kill()
    assert wait_until(lambda: any(each not in before for each in find_predictors(gate)), PATIENCE_S)
    first.kill()
    first.wait()
    assert wait_until(lambda: not find_predictors(gate), PATIENCE_S), "a cluster of a run ends with it"
    gate.unlink()
    resumed = run_here(COMMAND, *run, "--resume")
    assert f"{COUNT} rows in {output}" in resumed.stderr
    assert read_rows(output) == expected_rows(photos)


def test_a_machine_of_three_is_lost(
    odd_archive: Path, photos: Path, gate: Path, three_machines: Any, tmp_path: Path
) -> None:
    output = tmp_path / "rows"
    process = start("--archive", odd_archive, photos, *SMALL, output, "--address", three_machines.address)
    wait_for_shards(output, 1)
    assert wait_until(lambda: len(find_predictors(gate)) == 3, PATIENCE_S)
    three_machines.remove_node(three_machines.workers[0], allow_graceful=False)
    assert wait_until(lambda: len(find_predictors(gate)) == 2, PATIENCE_S)
    gate.unlink()
    status, said = finish(process, PATIENCE_S)
    assert (status, f"{COUNT} rows in {output}" in said) == (1, True), said
    assert read_rows(output) == expected_rows(photos)


def write_many(folder: Path) -> Path:
    """Write pictures of which no two are alike, every 50th broken or cut, and one in the middle black."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(MANY):
        file = folder / f"{number:05}.png"
        colours = random.integers(0, 255, (4, 4, 3), np.uint8) * (number != MANY // 2)
        Image.fromarray(colours).resize((40, 30), Image.Resampling.NEAREST).save(file, compress_level=1)
        if number % BROKEN_OF_MANY == BROKEN_OF_MANY - 1:
            file.write_bytes(file.read_bytes()[:60] if number % 2 else b"no picture")
    return folder


def without_scores(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[float]]:
    """Apart: scores differ in their last digits where pictures were in other batches."""
    scores = [found.pop("score") for row in rows for found in row["classes"] or ()]
    return rows, scores


def test_five_thousand_pictures_have_the_same_rows_whoever_predicts_them_and_whatever_dies(
    odd_archive: Path, gate: Path, three_machines: Any, tmp_path: Path, run_here: RunHere
) -> None:
    photos = write_many(tmp_path / "many")
    cluster = ("--engine", "ray", "--address", three_machines.address)
    ways = {"local": (), "ray": ("--engine", "ray"), "three": cluster}
    runs = {
        name: ("--archive", odd_archive, photos, "--format", "parquet", "--output", tmp_path / name, *options)
        for name, options in ways.items()
    }
    for name in ("local", "ray"):
        process = start(*runs[name])
        wait_for_shards(tmp_path / name, 1)
        process.kill()  # the black picture is still held, so the run has not ended
        process.wait()
        assert wait_until(lambda: not find_predictors(gate), PATIENCE_S)
    process = start(*runs["three"])
    wait_for_shards(tmp_path / "three", 1)
    three_machines.remove_node(three_machines.workers[0], allow_graceful=False)
    gate.unlink()
    _, said = finish(process, PATIENCE_S)
    assert f"{MANY} rows in {tmp_path / 'three'}" in said, said
    for name in ("local", "ray"):
        assert f"{MANY} rows in {tmp_path / name}" in run_here(COMMAND, *runs[name], "--resume").stderr
    properties = with_absolute_paths((ROOT / "config.properties").read_text(), ROOT)
    with temporary_server([odd_archive], with_values(properties, {"models": "{}"}), ROOT / "log4j2.xml") as server:
        over_http = ("--config", server.config, "--format", "parquet", "--output", tmp_path / "http")
        assert f"{MANY} rows in {tmp_path / 'http'}" in run_here(COMMAND, "odd", photos, *over_http).stderr
    (expected, scores), *others = (without_scores(read_all(tmp_path / name)) for name in (*ways, "http"))
    assert [row["path"] for row in expected] == [str(file) for file in sorted(photos.iterdir())]
    assert sum(row["status"] != 200 for row in expected) == MANY // BROKEN_OF_MANY
    assert len({row["classes"][0]["label"] for row in expected if row["classes"]}) > 1
    for rows, found in others:
        digest = {"archive_sha256": rows[0]["archive_sha256"]}  # a server does not say it
        assert rows == [{**row, **digest} for row in expected]
        assert found == pytest.approx(scores, abs=2e-6)


def test_a_cluster_without_room_is_told_at_once(
    odd_archive: Path, photos: Path, three_machines: Any, tmp_path: Path
) -> None:
    run = ("--archive", odd_archive, photos, *SMALL, tmp_path / "rows", "--address", three_machines.address)
    status, said = finish(start(*run, "--processes", "9"), PATIENCE_S)
    assert (status, said.count("\n")) == (1, 1), said
    assert "--processes 9: the cluster has 3 cores, and each process needs one" in said
    assert not (tmp_path / "rows").exists()


def test_without_ray_the_package_is_named(odd_archive: Path, photos: Path, tmp_path: Path) -> None:
    script = tmp_path / "without_ray.py"
    script.write_text(
        f"import sys; sys.modules['ray'] = None; import runpy; sys.argv = sys.argv[1:]\n"
        f"sys.path.insert(0, {str(ROOT / 'scripts')!r}); runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    command = [script, ROOT / "scripts" / COMMAND, "--archive", odd_archive, photos, *SMALL, tmp_path / "rows"]
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: Ray is not installed; run pip install -c constraints.txt -r requirements/ray.txt\n"


def test_no_cluster_at_an_address(odd_archive: Path, photos: Path, tmp_path: Path) -> None:
    run = ("--archive", odd_archive, photos, *SMALL, tmp_path / "rows", "--address", "127.0.0.1:9")
    status, said = finish(start(*run), PATIENCE_S)
    assert (status, "no cluster of Ray answers at 127.0.0.1:9" in said) == (1, True), said


def test_a_start_that_takes_too_long_is_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    """Ray's own limit of 30 seconds cannot be met on purpose, so the part that reaches it is a stand-in."""
    starts: list[dict[str, Any]] = []

    class SlowRay:
        @staticmethod
        def init(**options: Any) -> None:
            starts.append(options)
            if len(starts) < TRIES:
                raise Exception("The current node timed out during startup")

        @staticmethod
        def shutdown() -> None:
            pass

    _start(SlowRay, {"num_cpus": 2}, None)
    assert starts == [{"num_cpus": 2}] * TRIES
    assert capsys.readouterr().err.count("trying again") == TRIES - 1


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_an_archive_that_cannot_be_loaded_is_one_line_and_leaves_nothing(
    engine: str, odd_archive: Path, photos: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.mar"
    with zipfile.ZipFile(odd_archive) as whole, zipfile.ZipFile(damaged, "w") as written:
        for entry in whole.infolist():
            is_artifact = entry.filename.endswith(".safetensors")
            written.writestr(entry, b"no model" if is_artifact else whole.read(entry))
    run = ("--archive", damaged, photos, "--batch-size", "8", "--format", "parquet", "--output", tmp_path / "rows")
    status, said = finish(start(*run, "--engine", engine), PATIENCE_S)
    assert (status, said.count("\n"), said[:6]) == (1, 1, "error:"), said
    assert not (tmp_path / "rows").exists()


def test_a_full_disk_ends_the_run_with_one_line_and_it_goes_on_when_there_is_room(
    odd_archive: Path, photos: Path, gate: Path, tmp_path: Path, run_here: RunHere
) -> None:
    """A limit on the size of files fails as a full disk does; this machine's process writes the shards."""
    output = tmp_path / "rows"
    run = ("--archive", odd_archive, photos, *SMALL, output)
    process = start(*run)
    wait_for_shards(output, 1)
    psutil.Process(process.pid).rlimit(psutil.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    gate.unlink()
    status, said = finish(process, PATIENCE_S)
    assert (status, f"error: {output}: File too large" in said, "Traceback" in said) == (1, True, False), said
    assert run_here(COMMAND, *run, "--resume").returncode == 1
    assert read_rows(output) == expected_rows(photos)
