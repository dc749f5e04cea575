"""Int8 that was trained (`--qat`) beside int8 that was fitted, on a network that fitting hurts, with several seeds.

    python lab/measure_int8_training.py --work int8/ --json lab/results/int8_training.json

LCNet learns letters from random weights. Then it is trained with the values of int8, and, for comparison, just as long
in float before it is fitted. Test letters are of new fonts. The work folder keeps all that is done, so the same command
goes on after any end. It takes an hour.
"""

import json
import runpy
from argparse import Namespace
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

from mar_tools.command_line import new_parser, positive_count, run

PICTURES = {"train": 6000, "val": 500, "test": 3000}
NETWORK = ("--model", "lcnet_050", "--weights", "random", "--size", 64, "--learning-rate", 0.003)
SETTINGS = ("--augment", "light", "--no-flip")
BACKENDS = ("openvino", "onnxruntime")
SHOWN = ("backend", "precision", "verdict", "reason", "accuracy", "measured")


def main() -> None:
    arguments = parse_arguments()
    from lab.testbed.findings import write_whole
    from mar_tools.load_testing.reporting import describe_run

    found = measure(arguments.work, arguments.epochs, arguments.further_epochs, arguments.seeds)
    write_whole(arguments.json, json.dumps(describe_run(**found), indent=2) + "\n")


def measure(work: Path, epochs: int, further: int, seeds: int) -> dict[str, Any]:
    """Train the network, then go on from it with each seed in both ways, and build int8 of each result."""
    from lab.compression.remembering import call, draw

    data, original = work / "pictures", work / "original" / "recipe.yaml"
    draw("letters", data, PICTURES)
    trained = call("train_model.py", data, *NETWORK, *SETTINGS, "--epochs", epochs, "--output", original.parent)
    # --qat has the original as teacher, and a tenth of the learning rate; so has what it is compared with
    ways = {"qat": ("--qat",), "float": ("--distil-from", original, "--learning-rate", 1e-4)}
    results: dict[str, dict[int, Any]] = {way: {} for way in ways}
    for seed in range(seeds):
        for way, options in ways.items():
            given = (original, "--data", data, *SETTINGS, "--epochs", further, "--seed", seed, *options)
            found = call("compress_model.py", *given, "--output", work / f"{way}-{seed}")
            results[way][seed] = build(Path(found["recipe"]), BACKENDS[0], work)
    return {
        "network": NETWORK[1],
        "pictures": trained["pictures"],
        "epochs": epochs,
        "further_epochs": further,
        "original": {backend: build(original, backend, work) for backend in BACKENDS},
        "further": results,
    }


def build(recipe: Path, backend: str, work: Path) -> dict[str, Any]:
    """Return what a build measured of a recipe's network and of its int8, which the gate may refuse.

    All test pictures judge: a recipe that a training wrote has a part of them.
    """
    import yaml

    from lab.compression.remembering import command

    exports = work / f"exports-{backend}"
    rows = exports / recipe.parent.name / "candidates.json"
    if not rows.exists():
        values = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        values["verification"] |= {"images": str(work.absolute() / "pictures" / "test"), "count": PICTURES["test"]}
        judged = recipe.with_name("judged.yaml")
        judged.write_text(yaml.safe_dump(values), encoding="utf-8")
        chosen = ("--backend", backend, "--precision", "int8")
        command("build_model.py", judged, *chosen, "--model-store", work / "store", "--exports", exports, "--json")
    found = {row["precision"]: row for row in json.loads(rows.read_text())}
    return {name: {key: found[name].get(key) for key in SHOWN} for name in ("fp32", "int8")}


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="for pictures, networks and exports")
    parser.add_argument("--epochs", type=positive_count, default=24, help="of the first training (24)")
    parser.add_argument("--further-epochs", type=positive_count, default=4, help="of those after it (4)")
    parser.add_argument("--seeds", type=positive_count, default=3, help="of the trainings after it (3)")
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
