"""What one process can share out: names of objects listed and dealt to nobody, and the memory that they leave.

    python lab/measure_driver.py --json lab/results/performance/driver.json

The names stand in a list, so no object store is asked. A real run also counts all names beside its work.
"""

import runpy
import tempfile
import time
from argparse import Namespace
from pathlib import Path

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

import psutil

from mar_tools.command_line import new_parser, positive_count, run

CHUNK = 2048  # pictures


def main() -> None:
    arguments = parse_arguments()
    from lab.testbed.rounds import write_rounds

    with tempfile.TemporaryDirectory(prefix="driver-") as work:
        names = write_names(Path(work) / "names.txt", arguments.count)
        rounds = [measure_round(names, Path(work) / f"rows-{number}") for number in range(arguments.rounds)]
    write_rounds(arguments.json, rounds, count=arguments.count)


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--count", type=positive_count, default=10_000_000, help="of names (10000000)")
    parser.add_argument("--rounds", type=positive_count, default=3)
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args()


def write_names(path: Path, count: int) -> Path:
    with path.open("w", encoding="utf-8") as lines:
        lines.writelines(f"s3://bucket/photos/{number // 1000:07}/{number:010}.jpg\n" for number in range(count))
    return path


def measure_round(names: Path, output: Path) -> dict[str, float]:
    """Return the pictures per second that are counted, and that are dealt, and the bytes that each leaves."""
    from mar_tools.predicting.chunks import ChunkSource
    from mar_tools.predicting.inputs import list_items
    from mar_tools.predicting.shards import PARQUET, ResultFolder

    started = time.perf_counter()
    count = sum(1 for _ in list_items([str(names)]))
    counted = time.perf_counter()
    before = psutil.Process().memory_info().rss
    source = ChunkSource(list_items([str(names)]), ResultFolder(output, PARQUET))
    while source.take(CHUNK) is not None:
        pass
    dealt = time.perf_counter()
    return {
        "counted_per_s": count / (counted - started),
        "dealt_per_s": count / (dealt - counted),
        "bytes_a_picture": (psutil.Process().memory_info().rss - before) / count,
    }


if __name__ == "__main__":
    run(main)
