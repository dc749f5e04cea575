"""Compare our preprocessing and answers with those of the library that a model comes from.

    python lab/measure_fidelity.py                               # all models, some minutes
    python lab/measure_fidelity.py --models 'timm/*' '*resnet50*' # some, shown and not written
    python lab/measure_fidelity.py --list

Writes lab/results/fidelity.json and docs/evidence/fidelity.md.

Nothing is downloaded: preprocessing needs no weights, and the networks have random ones. Needs requirements/lab.txt.
"""

from argparse import Namespace
from pathlib import Path

from mar_tools.command_line import ROOT, new_parser, run

OUTPUT = ROOT / "lab" / "results" / "fidelity.json"


def main() -> None:
    arguments = parse_arguments()
    from lab.commands.measure_fidelity import measure_fidelity  # after the options: it imports PyTorch

    measure_fidelity(arguments)


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--models", nargs="+", metavar="PATTERN", help="of `library/model`, as --list shows them")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the json; the page lies beside it")
    parser.add_argument("--json", action="store_true", help="print the result too")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
