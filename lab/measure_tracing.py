"""What the line of a failed request and the spans of a traced one cost a worker: CPU time a request.

    python lab/measure_tracing.py model_store/digits.mar --picture examples/digits_classification/samples/seven.png \
        --json lab/results/performance/tracing.json

In each round one process after the other does what follows an answer, with a receiver of spans in another process.
"""

import runpy
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

from mar_tools.command_line import ROOT, new_parser, positive_count, run
from mar_tools.serving.ports import find_free_ports
from mar_tools.terminal import print_line


def main() -> None:
    arguments = parse_arguments()
    from lab.testbed.rounds import measure_apart, write_rounds
    from lab.testbed.tracing import MODES

    given = (arguments.archive.resolve(), arguments.picture.resolve(), arguments.requests)
    rounds = []
    with start_receiver() as receiver, start_receiver("hangs") as hanging:
        [closed] = find_free_ports(1)
        others = {"sampled_dead_receiver": f"http://127.0.0.1:{closed}", "sampled_hanging_receiver": hanging}
        for number in range(arguments.rounds):
            print_line(f"round {number + 1} of {arguments.rounds}")
            rounds.append(
                {
                    f"{mode}_us": measure_apart("lab.testbed.tracing", mode, *given, others.get(mode, receiver))
                    for mode in MODES
                }
            )
    write_rounds(arguments.json, rounds, requests=arguments.requests, batch_size=1)


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--requests", type=positive_count, default=3000)
    parser.add_argument("--rounds", type=positive_count, default=5)
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args()


@contextmanager
def start_receiver(*how: str) -> Iterator[str]:
    """Yield the address of a receiver in a process of its own."""
    command = [sys.executable, "-m", "lab.testbed.span_receiver", *how]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


if __name__ == "__main__":
    run(main)
