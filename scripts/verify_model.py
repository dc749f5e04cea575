"""Compare an export with the eager fp32 export beside it, on images, and write its verification.json.

    python scripts/verify_model.py exports/resnet50/openvino-bf16
    python scripts/verify_model.py exports/resnet50/openvino-bf16 --json
    python scripts/verify_model.py exports/resnet50/openvino-bf16 --images imagenet/val --labels folders --count 1000
    python scripts/verify_model.py exports/ssdlite320/openvino-bf16 --images val2017 --annotations val2017.json

Exit status 1 when the export breaks a bound.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mar_tools.command_line import new_parser, print_json, run
from mar_tools.measures import judge_measure, name_measure
from mar_tools.terminal import Table, new_table, number_column, print_tables, show_work
from vision_serving.errors import ConfigError
from vision_serving.validation import parse_config

MET = {True: "[green]yes[/]", False: "[red]no[/]", None: ""}


def main() -> None:
    given = parse_arguments()
    with show_work(f"verify {given.export}"):
        report = verify_by_recipe(given)
    if given.json:
        print_json(report, indent=True)
    else:
        print_tables(measure_table(report), to_stderr=True)
        print("verified" if report["passed"] else "rejected")
    if not report["passed"]:
        raise ConfigError(f"{given.export}: {'; '.join(report['failures'])}")


def parse_arguments() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("export", type=Path, help="a folder that export_model.py wrote")
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="in place of the recipe's and of what it says about them"
    )
    parser.add_argument("--labels", help="`folders` named after the classes, or a file as in a recipe")
    parser.add_argument("--annotations", type=Path, metavar="FILE", help="a COCO file with the boxes")
    parser.add_argument("--count", type=int, metavar="N", help="compare at most so many images")
    parser.add_argument("--json", action="store_true", help="print the whole report")
    return parser.parse_args()


def verify_by_recipe(given: argparse.Namespace) -> dict[str, Any]:
    """Verify by the recipe, with the command line's values over it; what it says of its images holds for no others."""
    from mar_tools.exporting.export_folders import read_manifest  # after the options: these need PyTorch
    from mar_tools.models.recipes import TRUTH_OF_BOUND, VerificationRecipe
    from mar_tools.verification.gate import verify_export

    names = ("images", "labels", "annotations", "count")
    wanted = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    own = read_manifest(given.export).verification.model_dump(exclude_none=True)
    if "images" in wanted:
        own = {key: value for key, value in own.items() if key not in (*names, *TRUTH_OF_BOUND)}
    return verify_export(given.export, parse_config(VerificationRecipe, {**own, **wanted}, "command line"))


def measure_table(report: Mapping[str, Any]) -> Table:
    """Lay out each measure with its bounds, then the accuracy of both where it is known."""
    images, bounds = report["images"], report["bounds"]
    table = new_table(
        "measure",
        number_column("measured"),
        number_column("asked"),
        "met",
        title=f"{report['backend']} {report['precision']} against {report['reference']}",
        caption=f"{images['count']} images of {images['source']}",
    )
    for name, value in report["measured"].items():
        asked, met = judge_measure(name, value, bounds)
        table.add_row(name_measure(name), f"{value:.4g}", asked, MET[met])
    for owner, figures in (report["accuracy"] or {}).items():
        for name, value in figures.items():
            table.add_row(f"{name_measure(name)} of {owner}", f"{value:.4g}")
    return table


if __name__ == "__main__":
    run(main)
