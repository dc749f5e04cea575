"""Offline prediction from files on disk, in turns with P, the same work in memory, and with one picture at a time.

    python lab/measure_offline.py model_store/digits.mar --images examples/digits_classification/heldout \
        --json lab/results/performance/offline.json

Then 200,000 files: how soon the first row is on the disk, and what memory the run takes from then on.
"""

import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

import orjson
import psutil

from mar_tools.command_line import ROOT, new_parser, positive_count, run
from mar_tools.images import find_images, read_image
from mar_tools.terminal import print_line
from mar_tools.waiting import wait_until
from vision_serving.cores import usable_cores

BATCH = 32
WINDOW_S = 8.0
ONE_BY_ONE = 2000  # pictures, of the flow that predicts one at a time
MANY = 200_000
WATCH_S = 40.0
PATIENCE_S = 120.0
POLL_S = 0.02


def main() -> None:
    arguments = parse_arguments()
    from mar_tools.load_testing.reporting import describe_run

    pictures = find_images(arguments.images)
    with tempfile.TemporaryDirectory(prefix="offline-", dir=arguments.folder) as work:
        folder = Path(work)
        few, some, many = (
            link_files(pictures, folder / str(count), count) for count in (ONE_BY_ONE, arguments.count, MANY)
        )
        rounds = []
        for number in range(arguments.rounds):
            print_line(f"round {number + 1} of {arguments.rounds}")
            rounds.append(
                {
                    **measure_in_process_rates(arguments.archive, pictures),
                    **measure_offline(arguments.archive, some, arguments.count, folder / f"rows-{number}"),
                    "one_by_one_images_per_s": measure_one_by_one(arguments.archive, few),
                }
            )
        document = describe_run(count=arguments.count, rounds=rounds, many=watch_many(arguments.archive, many, folder))
    arguments.json.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    for name in rounds[0]:
        print(f"{name}: {statistics.median(entry[name] for entry in rounds):,.1f}")
    print(document["many"])


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--images", type=Path, required=True, help="a folder, whose pictures are taken again and again")
    parser.add_argument("--count", type=positive_count, default=40_000, help="of pictures in a round (40000)")
    parser.add_argument("--rounds", type=positive_count, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk to read from and write to; a temporary one")
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args()


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
    from mar_tools.load_testing.in_process import measure_in_process

    images, cores = [read_image(picture) for picture in pictures[:64]], usable_cores()
    shared, apart = (
        measure_in_process(archive, images, processes, cores // processes, BATCH, WINDOW_S).requests_per_s
        for processes in (1, cores)
    )
    return {"p_one_process_images_per_s": shared, "p_process_a_core_images_per_s": apart}


def command_of(*arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / "predict_images.py"), *map(str, arguments)]


def measure_offline(archive: Path, folder: Path, count: int, output: Path, *options: object) -> dict[str, float]:
    """Return images per second of a whole command, and of it between the trial and the last row."""
    command = command_of("--archive", archive, folder, "--format", "parquet", "--output", output, *options)
    started = time.monotonic()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("processes: "):
                chosen, done = time.monotonic(), count_rows(output)
            if line.startswith(f"{count} rows in "):
                recorded = time.monotonic()
    ended = time.monotonic()
    if process.returncode or count_rows(output) != count:
        raise RuntimeError(f"{command} ended with {process.returncode}, and {count_rows(output)} rows of {count}")
    return {
        "offline_images_per_s": (count - done) / (recorded - chosen),
        "offline_command_images_per_s": count / (ended - started),
    }


def count_rows(output: Path) -> int:
    import pyarrow.parquet  # which --help does not wait for

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


if __name__ == "__main__":
    run(main)
