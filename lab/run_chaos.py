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

import runpy
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

from rich.console import Console

from mar_tools.command_line import ROOT, new_parser, run
from vision_serving.errors import VisionServingError

if TYPE_CHECKING:  # the laboratory, which --help needs not
    from lab.testbed.findings import Finding

RESULTS = ROOT / "lab" / "results" / "reliability"


def main() -> None:
    arguments = parse_arguments()
    from lab.pages.rendering import write_page
    from lab.reliability.rows import NAMES
    from lab.testbed.findings import CLAIMS

    if arguments.list:
        print("\n".join(f"{name:12} {CLAIMS[name]}" for name in NAMES))
        return
    findings = measure_rows(arguments)
    page = write_page("reliability", arguments.results)
    broken = [finding.row for finding in findings if not finding.held]
    if broken:
        raise VisionServingError(f"not held: {', '.join(broken)}; see {page}")


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="default: all")
    parser.add_argument("--repetitions", type=int, default=20, help="of each row of section B (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of traffic and faults (default: 0)")
    parser.add_argument("--rate", type=float, help="of the traffic, in requests/s; default: half of saturation")
    parser.add_argument("--fuzz-s", type=int, default=60, help="seconds of A6 (default: 60)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder; the page lies beside it")
    parser.add_argument("--list", action="store_true", help="show the rows")
    arguments = parser.parse_args()
    if arguments.repetitions < 1 or arguments.fuzz_s < 1:
        parser.error("--repetitions and --fuzz-s have to be at least 1")
    return arguments


def measure_rows(arguments: Namespace) -> "list[Finding]":
    """Write each finding when it is there."""
    from lab.reliability.rows import choose_rows, run_rows
    from lab.testbed.findings import write_finding

    console = Console(stderr=True)
    findings = []
    with console.status("") as status:

        def announce(step: str) -> None:
            status.update(step)
            if not console.is_terminal:
                console.print(step)

        rows = choose_rows(arguments.rows)
        for finding in run_rows(
            rows, arguments.repetitions, arguments.seed, announce, arguments.rate, arguments.fuzz_s
        ):
            write_finding(finding, arguments.results)
            console.print(f"{finding.row}: {'held' if finding.held else 'NOT held'}", highlight=False)
            for problem in finding.problems:
                console.print(f"  {problem}", markup=False, highlight=False, soft_wrap=True)
            findings.append(finding)
    return findings


if __name__ == "__main__":
    run(main)
