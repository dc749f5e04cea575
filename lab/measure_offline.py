"""Offline prediction from files on disk, in turns with P, the same work in memory, and with one picture at a time.

    python lab/measure_offline.py model_store/digits.mar --images examples/digits_classification/heldout \
        --json lab/results/performance/offline.json

Then 200,000 files: how soon the first row is on the disk, and what memory the run takes from then on.
"""

import runpy
import tempfile
from argparse import Namespace
from pathlib import Path

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

from mar_tools.command_line import new_parser, positive_count, run
from mar_tools.images import find_images
from mar_tools.terminal import print_line


def main() -> None:
    arguments = parse_arguments()
    from lab.testbed.offline import (
        MANY,
        ONE_BY_ONE,
        link_files,
        measure_in_process_rates,
        measure_offline,
        measure_one_by_one,
        watch_many,
    )
    from lab.testbed.rounds import write_rounds

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
        watched = watch_many(arguments.archive, many, folder)
    write_rounds(arguments.json, rounds, count=arguments.count, many=watched)
    print(watched)


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--images", type=Path, required=True, help="a folder, whose pictures are taken again and again")
    parser.add_argument("--count", type=positive_count, default=40_000, help="of pictures in a round (40000)")
    parser.add_argument("--rounds", type=positive_count, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk to read from and write to; a temporary one")
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
