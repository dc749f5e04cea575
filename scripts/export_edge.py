"""Export a recipe's model for a phone, a board or a browser: a folder with all that a program there needs.

    python scripts/export_edge.py recipes/digits.yaml --format ort --output phone/
    python scripts/export_edge.py recipes/digits.yaml --format ort --precision int8 --output phone/
    python scripts/export_edge.py recipes/digits.yaml --format onnx-web --output page/
    python scripts/export_edge.py recipes/digits.yaml --format executorch --output phone/ --json

The artifact takes uint8 RGB. Beside it are labels, preprocessing and options as JSON, programs that prepare pictures
and read outputs, a golden picture with its answer, and README.md with the lines for each platform. The format's own
runtime answers the recipe's verification pictures here, and verification.json says how near it is to eager fp32.

executorch and litert: Android, iOS, boards. ort: the same by ONNX Runtime. onnx-web: browsers.
litert installs 1 GB into an environment of its own, for which it asks; --yes answers.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from mar_tools.command_line import new_parser, print_json, recipe_file, run
from mar_tools.edge.environments import find_python, locate_environment
from mar_tools.measures import judge_measure, name_measure
from mar_tools.terminal import Table, new_table, number_column, print_tables, show_work
from vision_serving.errors import ConfigError

FORMATS = ("executorch", "litert", "onnx-web", "ort")


def main() -> None:
    given = parse_arguments()
    if given.format == "litert" and not given.yes:
        confirm_installation()
    from mar_tools.edge.export import export_edge  # after the options: these need PyTorch
    from mar_tools.models.recipes import read_recipe

    recipe = read_recipe(given.recipe, given.trust_remote_code, weights=given.weights)
    with show_work(f"export {recipe.name}") as announce:
        report = export_edge(recipe, given.format, given.precision, given.output, announce)
    if given.json:
        print_json(report, indent=True)
        return
    print_tables(measure_table(report), to_stderr=True)
    print(f"{given.output}\nnext: read {given.output / 'README.md'}")


def confirm_installation() -> None:
    """Ask before 1 GB is installed. Raises ConfigError where nobody can be asked, or the answer is no."""
    folder = locate_environment("litert")
    if find_python("litert") is not None:
        return
    question = f"--format litert installs 1 GB into {folder}"
    if not sys.stdin.isatty() or input(f"{question}. Go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise ConfigError(f"{question}; --yes allows it")


def parse_arguments() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("recipe", type=recipe_file, help="a recipe yaml")
    parser.add_argument("--format", required=True, choices=FORMATS, help="what the folder is for")
    parser.add_argument("--precision", choices=("fp32", "int8"), default="fp32", help="default: fp32")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="new, or of an earlier export")
    parser.add_argument("--weights", metavar="W", help="published weights, a file of weights, or `random`")
    parser.add_argument("--trust-remote-code", action="store_true", help="run Python code that comes with the model")
    parser.add_argument("--yes", action="store_true", help="install what a format needs without asking")
    parser.add_argument("--json", action="store_true", help="print the verification as JSON")
    return parser.parse_args()


def measure_table(report: dict[str, Any]) -> Table:
    """Lay out each measure with its bounds."""
    table = new_table(
        "measure",
        number_column("measured"),
        number_column("asked"),
        title=f"{report['runtime']}, {report['precision']}, {report['artifact_mb']:g} MB",
        caption=f"{report['images']} images, against {report['reference']}",
    )
    for name, value in report["measured"].items():
        table.add_row(name_measure(name), f"{value:.4g}", judge_measure(name, value, report["bounds"])[0])
    return table


if __name__ == "__main__":
    run(main)
