"""What counting for metrics costs a worker: CPU time a batch of one and of eight.

    python lab/measure_counting.py model_store/digits.mar --picture examples/digits_classification/samples/seven.png \
        --json lab/results/performance/counting.json

In each round, a process for each size counts one batch again and again.
"""

import runpy
from argparse import Namespace
from pathlib import Path

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

from mar_tools.command_line import new_parser, positive_count, run
from mar_tools.terminal import print_line


def main() -> None:
    arguments = parse_arguments()
    from lab.testbed.counting import BATCH_SIZES
    from lab.testbed.rounds import measure_apart, write_rounds

    given = (arguments.archive.resolve(), arguments.picture.resolve(), arguments.batches)
    rounds = []
    for number in range(arguments.rounds):
        print_line(f"round {number + 1} of {arguments.rounds}")
        rounds.append(
            {f"batch_of_{size}_us": measure_apart("lab.testbed.counting", size, *given) for size in BATCH_SIZES}
        )
    write_rounds(arguments.json, rounds, batches=arguments.batches)


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--batches", type=positive_count, default=5000)
    parser.add_argument("--rounds", type=positive_count, default=5)
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
