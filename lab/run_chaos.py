"""Hurt a server and its archives; write what was seen to lab/results/reliability and docs/evidence/reliability.md.

    python lab/run_chaos.py                          # all rows, those of section B 20 times each: some hours
    python lab/run_chaos.py A C                      # hostile requests and archives: minutes
    python lab/run_chaos.py B1 B4 --repetitions 2    # some; B4 is B4-deadlock, B4-loop, ...
    python lab/run_chaos.py --list

It starts servers of its own, on free ports. The file of a row is written when the row has finished: what is
interrupted keeps its former file, and the rows that are missing can be run later. Exit status 1 where a row does not
hold. Stop other work on the machine first: the rate of the traffic is half of what the server can do alone. A6 needs
requirements/fuzz.txt.
"""

from argparse import Namespace
from pathlib import Path

from mar_tools.command_line import ROOT, new_parser, run

RESULTS = ROOT / "lab" / "results" / "reliability"


def main() -> None:
    arguments = parse_arguments()
    from lab.commands.run_chaos import run_chaos  # after the options: it imports PyTorch

    run_chaos(arguments)


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="default: all")
    parser.add_argument("--repetitions", type=int, default=20, help="of each row of section B (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of traffic and faults (default: 0)")
    parser.add_argument("--rate", type=float, help="of the traffic, in requests/s; default: half of saturation")
    parser.add_argument("--fuzz-s", type=int, default=60, help="seconds of A6 (default: 60)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder; the page lies beside it")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--list", action="store_true", help="show the rows")
    arguments = parser.parse_args()
    if arguments.repetitions < 1 or arguments.fuzz_s < 1:
        parser.error("--repetitions and --fuzz-s have to be at least 1")
    return arguments


if __name__ == "__main__":
    run(main)
