"""What counting for metrics costs a worker: CPU time a batch of one and of eight; and samples of predictions a request.

    python lab/measure_counting.py model_store/digits.mar --picture examples/digits_classification/samples/seven.png \
        --json lab/results/performance/counting.json

In each round, a process for each size counts one batch again and again, and one for each way to sample keeps one
request again and again: none, one in a hundred, all, all with their pictures, and of all what the answer waits for.
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
    from lab.testbed.kept_predictions import MODES
    from lab.testbed.rounds import measure_apart, write_rounds

    given = (arguments.archive.resolve(), arguments.picture.resolve(), arguments.batches)
    rounds = []
    for number in range(arguments.rounds):
        print_line(f"round {number + 1} of {arguments.rounds}")
        counted = {f"batch_of_{size}_us": measure_apart("lab.testbed.counting", size, *given) for size in BATCH_SIZES}
        kept = {f"sampled_{mode}_us": measure_apart("lab.testbed.kept_predictions", mode, *given) for mode in MODES}
        rounds.append({**counted, **kept})
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
