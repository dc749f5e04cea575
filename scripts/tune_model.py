"""Find the workers, threads, batch size and batch delay that serve a model the fastest within a latency.

    python scripts/tune_model.py resnet50 --p99-ms 100
    python scripts/tune_model.py resnet50 --p99-ms 50 --budget-min 20 --images my_photos/ --apply
    python scripts/tune_model.py resnet50 --p99-ms 100 --exhaustive --json all_settings.json

Each trial serves the archive of the model store from a TorchServe of its own, on free ports, and sends it requests at
random times: the highest rate at which 99 of 100 requests are answered within --p99-ms counts. The best settings are
then measured in turns with those of config.properties, and written there if they are better; the evidence goes to
tuning/MODEL.json beside it. A search that was interrupted, or needs more time, goes on when it is started again.
Stop other work on the machine first, a loaded server too: it takes the cores that the trials need.
"""

from argparse import Namespace
from pathlib import Path

from mar_tools.command_line import ROOT, new_parser, run


def main() -> None:
    arguments = parse_arguments()
    from mar_tools.tuning.command import tune_model  # after the options: it imports PyTorch

    tune_model(arguments)


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("model", help="its name in the model store")
    parser.add_argument("--p99-ms", type=float, required=True, help="99 of 100 requests are to be answered within")
    parser.add_argument("--budget-min", type=float, default=10.0, help="about how long settings are searched for")
    parser.add_argument("--version", help="of the model, where the store has several")
    parser.add_argument("--images", type=Path, help="a folder; default: cuts of examples/photographs, 640 x 427")
    parser.add_argument("--trial-s", type=float, default=5.0, help="how long a load of a trial lasts")
    parser.add_argument("--batch-sizes", type=int, nargs="+", metavar="N", help="to choose from; default: 1, 2, 4, ...")
    parser.add_argument("--delays-ms", type=int, nargs="+", metavar="MS", help="to choose from; default: 1, 2, 5, ...")
    parser.add_argument("--exhaustive", action="store_true", help="try everything, however long; write no settings")
    parser.add_argument("--apply", action="store_true", help="to the running server too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the evidence; default: tuning/MODEL.json")
    parser.add_argument("--config", type=Path, default=ROOT / "config.properties", help="the server's settings")
    arguments = parser.parse_args()
    for name in ("p99_ms", "budget_min", "trial_s"):
        if getattr(arguments, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} has to be more than 0")
    for name in ("batch_sizes", "delays_ms"):
        if min(getattr(arguments, name) or [1]) < 1:
            parser.error(f"--{name.replace('_', '-')} have to be 1 or more")
    return arguments


if __name__ == "__main__":
    run(main)
