"""Send hours of traffic with hostile requests and clients that leave; write results, plots and the page.

    python lab/run_soak.py --minutes 10      # the quick form
    python lab/run_soak.py --minutes 60
    python lab/run_soak.py --malformed       # 5,000 requests that are hardly HTTP

It starts a server of its own, on free ports. Exit status 1 where something does not hold. Stop other work on the
machine first: the rate of the traffic is half of what the server can do alone.
"""

import runpy
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

from rich.console import Console

from mar_tools.command_line import ROOT, Announce, new_parser, run
from vision_serving.errors import VisionServingError

if TYPE_CHECKING:  # the laboratory, which --help needs not
    from lab.testbed.findings import Finding

RESULTS = ROOT / "lab" / "results" / "reliability"


def main() -> None:
    arguments = parse_arguments()
    from lab.pages.rendering import write_page

    with Console(stderr=True).status("building the archives") as status:
        finding = measure_soak(arguments, status.update)
    page = write_page("reliability", arguments.results)
    for name, value in finding.measured.items():
        print(f"{name:28} {value:g}")
    print("\n".join((*finding.problems, *finding.failures)))
    if not finding.held:
        raise VisionServingError(f"not held: {finding.row}; see {page}")


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--malformed", action="store_true", help="malformed requests instead")
    parser.add_argument("--count", type=int, default=5000, help="of malformed requests (default: 5000)")
    parser.add_argument("--seed", type=int, default=0, help="of the requests (default: 0)")
    parser.add_argument("--rate", type=float, help="of the traffic, in requests/s; default: half of saturation")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder; the page lies beside it")
    arguments = parser.parse_args()
    if arguments.minutes <= 0 or arguments.count < 1:
        parser.error("--minutes and --count have to be more than 0")
    return arguments


def measure_soak(arguments: Namespace, announce: Announce) -> "Finding":
    from lab.reliability.malformed import run_malformed
    from lab.reliability.soak import soak
    from lab.reliability.soak_plots import plot_soak, write_curves
    from lab.testbed.archives import build_archives
    from lab.testbed.findings import write_finding
    from lab.testbed.world import open_world

    what = f"--malformed --count {arguments.count}" if arguments.malformed else f"--minutes {arguments.minutes:g}"
    rate = f" --rate {arguments.rate:g}" if arguments.rate else ""
    command = f"python lab/run_soak.py {what} --seed {arguments.seed}{rate}"
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        archives = build_archives(Path(folder))
        announce("starting a server")
        with open_world(archives, {}, rate=arguments.rate) as world:
            if arguments.malformed:
                finding = run_malformed(world, arguments.count, arguments.seed, command, announce)
            else:
                soaked = soak(world, arguments.minutes, arguments.seed, command, announce)
                finding = soaked.finding
                plot_soak(write_curves(soaked, arguments.minutes, arguments.results), finding, arguments.results)
    write_finding(finding, arguments.results)
    return finding


if __name__ == "__main__":
    run(main)
