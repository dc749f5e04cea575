"""Runs of predict_images.py that are timed or watched: their files, and their rates."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet

from mar_tools.command_line import ROOT
from mar_tools.images import read_image
from mar_tools.load_testing.in_process import measure_in_process
from mar_tools.waiting import wait_until
from vision_serving.cores import usable_cores

BATCH = 32
WINDOW_S = 8.0
ONE_BY_ONE = 2000  # pictures, of the flow that predicts one at a time
MANY = 200_000
WATCH_S = 40.0
PATIENCE_S = 120.0
POLL_S = 0.02


def link_files(pictures: Sequence[Path], folder: Path, count: int) -> Path:
    """Write each picture once, and give it so many names."""
    originals = folder.with_name(f"{folder.name}-pictures")
    originals.mkdir()
    for number, picture in enumerate(pictures):
        (originals / f"{number}{picture.suffix}").write_bytes(read_image(picture))
    sources = sorted(originals.iterdir())
    for number in range(count):
        inner = folder / f"{number // 1000:04}"
        if number % 1000 == 0:
            inner.mkdir(parents=True)
        source = sources[number % len(sources)]
        os.link(source, inner / f"{number:07}{source.suffix}")
    return folder


def measure_in_process_rates(archive: Path, pictures: Sequence[Path]) -> dict[str, float]:
    """Return P in images per second: bytes in memory to JSON, in one process with all cores, and in one a core."""
    images, cores = [read_image(picture) for picture in pictures[:64]], usable_cores()
    shared, apart = (
        measure_in_process(archive, images, processes, cores // processes, BATCH, WINDOW_S).requests_per_s
        for processes in (1, cores)
    )
    return {"p_one_process_images_per_s": shared, "p_process_a_core_images_per_s": apart}


def command_of(*arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / "predict_images.py"), *map(str, arguments)]


def measure_offline(archive: Path, folder: Path, count: int, output: Path, *options: object) -> dict[str, float]:
    """Return images per second of a whole command, and of it between the trial and the naming of the last shard.

    Also the seconds before and after that: models that load, a cluster that starts and ends.
    """
    command = command_of("--archive", archive, folder, "--format", "parquet", "--output", output, *options)
    started = time.time()  # as the system dates files
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("processes: "):
                chosen, done = time.time(), count_rows(output)
    ended = time.time()
    if process.returncode or count_rows(output) != count:
        raise RuntimeError(f"{command} ended with {process.returncode}, and {count_rows(output)} rows of {count}")
    recorded = max(part.stat().st_ctime for part in output.glob("part-*"))
    return {
        "offline_images_per_s": (count - done) / (recorded - chosen),
        "offline_start_s": chosen - started,
        "offline_end_s": ended - recorded,
        "offline_command_images_per_s": count / (ended - started),
    }


def count_rows(output: Path) -> int:
    return sum(pyarrow.parquet.read_metadata(part).num_rows for part in output.glob("part-*"))


def measure_one_by_one(archive: Path, folder: Path) -> float:
    """Return images per second of a command whose answers go to standard output, its start included."""
    started = time.monotonic()
    subprocess.run(command_of("--archive", archive, folder, "--json"), stdout=subprocess.DEVNULL, check=True)
    return ONE_BY_ONE / (time.monotonic() - started)


def watch_many(archive: Path, folder: Path, work: Path) -> dict[str, Any]:
    """Return the seconds until the first row, and the memory in MB then and at the end, of a run that is then ended."""
    output = work / "many"
    started = time.monotonic()
    command = command_of("--archive", archive, folder, "--format", "parquet", "--output", output)
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        assert wait_until(lambda: any(output.glob("part-*")), PATIENCE_S, POLL_S)
        first_row_s = time.monotonic() - started
        time.sleep(WATCH_S / 2)
        between = memory_mb(process.pid)
        time.sleep(WATCH_S / 2)
        end = memory_mb(process.pid)
        process.terminate()
    done = count_rows(output)
    return {"files": MANY, "first_row_s": first_row_s, "memory_mb": [between, end], "after_s": WATCH_S, "rows": done}


def memory_mb(pid: int) -> float:
    """Return the memory of a process and of those that it started; what they share counts once for each."""
    leader = psutil.Process(pid)
    return float(sum(each.memory_info().rss for each in (leader, *leader.children(recursive=True)))) / 1e6
