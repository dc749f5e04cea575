"""What counting for metrics costs a worker: CPU time a batch of one and of eight.

    python lab/measure_counting.py model_store/digits.mar --picture examples/digits_classification/samples/seven.png \
        --json lab/results/performance/counting.json

In each round, a process for each size counts one batch again and again.
"""

import runpy
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

from mar_tools.command_line import ROOT, new_parser, positive_count, run
from mar_tools.terminal import print_line

TIMEOUT_S = 300.0


def main() -> None:
    arguments = parse_arguments()
    from lab.testbed.counting import BATCH_SIZES
    from lab.testbed.rounds import write_rounds

    rounds = []
    for number in range(arguments.rounds):
        print_line(f"round {number + 1} of {arguments.rounds}")
        rounds.append({f"batch_of_{size}_us": measure(size, arguments) for size in BATCH_SIZES})
    write_rounds(arguments.json, rounds, batches=arguments.batches)


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--batches", type=positive_count, default=5000)
    parser.add_argument("--rounds", type=positive_count, default=5)
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args()


def measure(batch_size: int, arguments: Namespace) -> float:
    """Return microseconds of CPU a batch, in a new process."""
    given = [batch_size, arguments.archive.resolve(), arguments.picture.resolve(), arguments.batches]
    command = [sys.executable, "-m", "lab.testbed.counting", *map(str, given)]
    finished = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S, check=True)
    return round(float(finished.stdout), 1)


if __name__ == "__main__":
    run(main)
