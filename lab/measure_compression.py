"""What compressing gains and costs on two tasks: the ladder of compress_model.py, and int8 trained beside int8 fitted.

    python lab/measure_compression.py --work compression/ --json lab/results/compression.json
    python lab/measure_compression.py --task letters --budget-min 60 --work compression/ --json letters.json

The pictures are drawn here. Test digits were written by people whom no training saw, test letters are of new fonts.
Each network is trained first. The work folder keeps all that is done, so the same command goes on after any end.
"""

import json
import runpy
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

from mar_tools.command_line import ROOT, new_parser, positive, positive_count, run
from mar_tools.terminal import print_line

JUDGED = {"val": 500, "test": 1000}  # pictures
DIGITS = str(ROOT / "examples" / "digits_classification" / "weights.safetensors")
SHOWN = ("backend", "precision", "verdict", "reason", "accuracy", "images_per_s", "size_mb")
COMMON = ("--size", 96, "--no-flip")
SMALL = "digits"  # int8 costs a small network most
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
    """Draw, train, climb the ladder, and train for int8 with each seed; what is there already is not made again."""
    folder = arguments.work / task
    data, model = folder / "pictures", folder / "model"
    if not data.exists():
        draw(task, data, arguments.count)
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
        "int8": compare_int8(folder, data, settings, arguments.seeds) if task == SMALL and arguments.seeds else None,
    }


def compare_int8(folder: Path, data: Path, settings: tuple[object, ...], seeds: int) -> dict[str, Any]:
    """Train the network of the ladder whose int8 lost most with the values of int8, with each seed."""
    from mar_tools.compressing.fronts import Point

    points = [Point.read(path) for path in sorted(folder.glob("found/points/*/point.json"))]
    fitted = [point for point in points if point.rows and "int8 trained" not in point.name]
    lost = {point.recipe: accuracy_of(point, "fp32") - accuracy_of(point, "int8") for point in fitted}
    hurt = next(point for point in points if point.recipe == max(lost, key=lambda recipe: lost[recipe]))
    trained = {}
    for seed in range(seeds):
        given = (hurt.recipe, "--data", data, *settings, "--qat", "--seed", seed)
        found = call("compress_model.py", *given, "--output", folder / f"qat-{seed}")
        trained[str(seed)] = build(Path(found["recipe"]), folder)
    return {
        "network": hurt.name,
        "float": accuracy_of(hurt, "fp32"),
        "fitted": [describe_row(row) for row in hurt.rows.values() if row.precision == "int8"],
        "trained": trained,
    }


def accuracy_of(point: Any, precision: str) -> float:
    """Return the accuracy of a point's last export of a precision; 1 where it has none."""
    found = [row.accuracy["top1"] for row in point.rows.values() if row.accuracy and row.precision == precision]
    return float(found[-1]) if found else 1.0


def describe_row(row: Any) -> dict[str, Any]:
    return {key: getattr(row, key) for key in SHOWN}


def draw(task: str, data: Path, count: int) -> None:
    """Draw the pictures of all parts. count: of those to train with."""
    sys.path.append(str(ROOT))  # for `examples`, which nothing installs
    from lab.compression import pictures

    print_line(f"{task}: drawing pictures")
    partial = data.with_name("drawing")
    {"digits": pictures.draw_digits, "letters": pictures.draw_letters}[task](partial, {"train": count, **JUDGED})
    partial.rename(data)


def build(recipe: Path, folder: Path) -> dict[str, Any]:
    """Return the accuracy of OpenVINO's int8 of a recipe, and that of the network itself; the gate may refuse it."""
    places = ("--model-store", folder / "store", "--exports", folder / "exports")
    chosen = ("--backend", "openvino", "--precision", "int8")
    done = command("build_model.py", recipe, *chosen, *places, "--json")
    rows = json.loads((folder / "exports" / recipe.parent.name / "candidates.json").read_text())
    return {"passed": done.returncode == 0, "rows": [{key: row[key] for key in SHOWN} for row in rows]}


def call(script: str, *arguments: object) -> dict[str, Any]:
    """Return what a command says as JSON, having gone on where an earlier run of it ended. Raises where it fails."""
    output = Path(str(arguments[-1]))
    result = output.with_suffix(".json")
    if not result.exists():
        print_line(f"{output}: {script}")
        resume = ["--resume"] if (output / "training.json").exists() else []
        done = command(script, *arguments, *resume, "--json")
        if done.returncode:
            sys.exit(done.returncode)
        result.write_text(done.stdout)
    return dict(json.loads(result.read_text()))


def command(script: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, str(ROOT / "scripts" / script), *map(str, arguments)]
    return subprocess.run(line, stdout=subprocess.PIPE, text=True)


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--task", action="append", choices=STARTS, help="one alone (both)")
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="for pictures, networks and exports")
    parser.add_argument("--count", type=positive_count, default=6000, help="of pictures to train with (6000)")
    parser.add_argument("--epochs", type=positive_count, default=4, help="of each training, at most (4)")
    parser.add_argument("--budget-min", type=positive, default=60.0, help="of each ladder (60)")
    parser.add_argument("--seeds", type=int, choices=range(10), default=3, help="of the trainings for int8 (3)")
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
