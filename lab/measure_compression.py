"""What compressing gains and costs on two tasks: the ladder of compress_model.py.

    python lab/measure_compression.py --work compression/ --json lab/results/compression.json
    python lab/measure_compression.py --task letters --budget-min 60 --work compression/ --json letters.json

The pictures are drawn here. Test digits were written by people whom no training saw, test letters are of new fonts.
Each network is trained first. The work folder keeps all that is done, so the same command goes on after any end.
"""

import json
import runpy
from argparse import Namespace
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

from mar_tools.command_line import ROOT, new_parser, positive, positive_count, run

JUDGED = {"val": 500, "test": 1000}  # pictures
DIGITS = str(ROOT / "examples" / "digits_classification" / "weights.safetensors")
COMMON = ("--size", 96, "--no-flip")
# The network of a task, and what it begins with: a small one whose weights know other writers, and a large one.
STARTS = {
    "digits": ("--model", "mobilenet_v3_small", "--weights", DIGITS, *COMMON),
    "letters": ("--model", "resnet18", "--weights", "random", *COMMON),
}


def main() -> None:
    arguments = parse_arguments()
    from lab.testbed.findings import write_whole
    from mar_tools.load_testing.reporting import describe_run

    found = {task: measure(task, arguments) for task in arguments.task or STARTS}
    write_whole(arguments.json, json.dumps(describe_run(tasks=found), indent=2) + "\n")


def measure(task: str, arguments: Namespace) -> dict[str, Any]:
    """Draw, train and climb the ladder; what is there already is not made again."""
    from lab.compression.remembering import call, draw

    folder = arguments.work / task
    data, model = folder / "pictures", folder / "model"
    draw(task, data, {"train": arguments.count, **JUDGED})
    settings = ("--epochs", arguments.epochs, "--augment", "light")
    trained = call("train_model.py", data, *STARTS[task], *settings, "--output", model)
    given = (model / "recipe.yaml", "--data", data, *settings)
    ladder = call(
        "compress_model.py", *given, "--auto", "--budget-min", arguments.budget_min, "--output", folder / "found"
    )
    return {
        "trained": {key: trained[key] for key in ("test_accuracy", "best_epoch", "epochs", "seconds", "pictures")},
        "ladder": {
            "points": [{key: value for key, value in point.items() if key != "recipe"} for point in ladder["points"]],
            **{key: ladder[key] for key in ("untried", "hopeless", "budget_min", "baseline_accuracy")},
        },
    }


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--task", action="append", choices=STARTS, help="one alone (both)")
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="for pictures, networks and exports")
    parser.add_argument("--count", type=positive_count, default=6000, help="of pictures to train with (6000)")
    parser.add_argument("--epochs", type=positive_count, default=4, help="of each training, at most (4)")
    parser.add_argument("--budget-min", type=positive, default=60.0, help="of each ladder (60)")
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
