"""Fuzz the reading of requests and the decoding of pictures, guided by coverage (atheris).

    python lab/fuzz_requests.py --seconds 600
    python lab/fuzz_requests.py --seconds 60 --keep fuzzing    # goes on from what it found before
    python lab/fuzz_requests.py --seconds 60 --json

It begins with the corpus of the reliability tests. Only errors of our own types may come out, and nothing may take more
than two seconds of the processor. Exit status 1 where something else happens: what did it is in --keep. Needs
requirements/fuzz.txt.
"""

import runpy
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

import orjson
from rich.console import Console

from mar_tools.command_line import new_parser, run
from vision_serving.errors import VisionServingError


def main() -> None:
    arguments = parse_arguments()
    from lab.hostile.fuzzing import fuzz  # after the options: it imports PyTorch

    with Console(stderr=True).status(f"fuzzing for {arguments.seconds} s"):
        found = fuzz(arguments.seconds, arguments.seed, arguments.keep)
    if arguments.json:
        print(orjson.dumps(asdict(found)).decode())
    else:
        print(f"{found.executions:,} requests, {found.edges:,} edges of code reached, slowest {found.slowest_s} s")
    for failure in found.failures:
        Console(stderr=True).print(failure, markup=False, highlight=False)
    if found.failures:
        raise VisionServingError(f"{len(found.failures)} failure, above")


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--seconds", type=int, default=300, help="(default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="of the fuzzer (default: 0)")
    parser.add_argument("--keep", type=Path, help="folder for the corpus and for what fails")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
