"""Send hours of traffic with hostile requests and clients that leave; write results, plots and the page.

    python lab/run_soak.py --minutes 10      # the quick form
    python lab/run_soak.py --minutes 60
    python lab/run_soak.py --malformed       # 5,000 requests that are hardly HTTP

It starts a server of its own, on free ports. Exit status 1 where something does not hold. Stop other work on the
machine first: the rate of the traffic is half of what the server can do alone.
"""

from argparse import Namespace
from pathlib import Path

from mar_tools.command_line import ROOT, new_parser, run

RESULTS = ROOT / "lab" / "results" / "reliability"


def main() -> None:
    arguments = parse_arguments()
    from lab.commands.run_soak import run_soak  # after the options: it imports PyTorch

    run_soak(arguments)


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--malformed", action="store_true", help="malformed requests instead")
    parser.add_argument("--count", type=int, default=5000, help="of malformed requests (default: 5000)")
    parser.add_argument("--seed", type=int, default=0, help="of the requests (default: 0)")
    parser.add_argument("--rate", type=float, help="of the traffic, in requests/s; default: half of saturation")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder; the page lies beside it")
    parser.add_argument("--json", action="store_true", help="print the finding as JSON")
    arguments = parser.parse_args()
    if arguments.minutes <= 0 or arguments.count < 1:
        parser.error("--minutes and --count have to be more than 0")
    return arguments


if __name__ == "__main__":
    run(main)
