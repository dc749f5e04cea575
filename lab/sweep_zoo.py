"""Build and verify the model zoo on every CPU backend and precision.

    python lab/sweep_zoo.py                                  # all that is not known yet; Ctrl-C and go on later
    python lab/sweep_zoo.py --passes 1                       # the quick backends only
    python lab/sweep_zoo.py --models 'resnet*' detection/* --backends openvino --precisions int8
    python lab/sweep_zoo.py --again failed                   # all that is known not to be verified
    python lab/sweep_zoo.py --list                           # the models, and how many rows each has left

Writes lab/results/compatibility.json and docs/evidence/compatibility.md. Each model has random weights.
--timed says that nothing else ran on the machine: the page then trusts the times.
"""

from argparse import Namespace
from pathlib import Path

from mar_tools.command_line import ROOT, new_parser, run

OUTPUT = ROOT / "lab" / "results" / "compatibility.json"


def main() -> None:
    arguments = parse_arguments()
    from lab.commands.sweep_zoo import sweep_zoo  # after the options: it imports PyTorch

    sweep_zoo(arguments)


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--models", nargs="+", metavar="NAME", help="names, or patterns such as 'resnet*' and 'timm/*'")
    parser.add_argument("--backends", nargs="+")
    parser.add_argument("--precisions", nargs="+", help="fp32 bf16 int8")
    parser.add_argument("--passes", nargs="+", type=int, help="1: quick backends, 2: aotinductor, 3: all others")
    parser.add_argument("--again", nargs="?", const="all", default="nothing", choices=["failed", "all", "nothing"])
    parser.add_argument("--timed", action="store_true", help="the machine does nothing else")
    parser.add_argument("--timeout-s", type=float, default=300.0, help="for one row (default: 300)")
    parser.add_argument("--memory-gib", type=float, default=16.0, help="for one row (default: 16)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the json; the page lies beside it")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
