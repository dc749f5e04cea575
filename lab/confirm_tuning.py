"""Is what the tuner's search found as good as the best of all settings? Both again, in turns, with longer loads.

    python lab/confirm_tuning.py --config lab/config.properties --p99-ms 60 \
        --exhaustive tuning-exhaustive.json --search tuning-search.json --json tuning-confirmed.json

A trial of the tuner is short, so of two settings that are as good as each other either may have had the luck. Here the
one that the search wrote into the settings and the best of all that were tried are tried anew in every round.
"""

from argparse import Namespace
from pathlib import Path

from mar_tools.command_line import ROOT, new_parser, run


def main() -> None:
    arguments = parse_arguments()
    from lab.commands.confirm_tuning import confirm_tuning  # after the options: it imports PyTorch

    confirm_tuning(arguments)


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "config.properties")
    parser.add_argument("--p99-ms", type=float, required=True, help="that of the search")
    parser.add_argument("--exhaustive", type=Path, required=True, help="evidence of tune_model.py --exhaustive")
    parser.add_argument("--search", type=Path, required=True, help="evidence of the search")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--load-s", type=float, default=4.0, help="how long each load lasts")
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
