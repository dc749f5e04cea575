"""Compare an export with the eager fp32 export beside it, on images, and write its verification.json.

    python scripts/verify_model.py exports/resnet50/openvino-bf16
    python scripts/verify_model.py exports/resnet50/openvino-bf16 --images imagenet/val --labels folders --count 1000
    python scripts/verify_model.py exports/ssdlite320/openvino-bf16 --images val2017 --annotations val2017.json
    python scripts/verify_model.py exports/resnet50/openvino-bf16 --json

Exit status 1 when the export breaks a bound.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Column, Table

from mar_tools.command_line import new_parser, run
from mar_tools.exporting.export_folders import read_manifest
from mar_tools.models.recipes import VerificationRecipe
from mar_tools.verification.gate import verify_export
from vision_serving.errors import ConfigError
from vision_serving.validation import parse_config


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("export", type=Path, help="a folder that export_model.py wrote")
    parser.add_argument("--images", type=Path, help="a folder, in place of the recipe's and of what it says about them")
    parser.add_argument(
        "--labels", help="`folders` named after the classes, or a JSON file with the class of each folder"
    )
    parser.add_argument("--annotations", type=Path, help="a COCO file with the boxes")
    parser.add_argument("--count", type=int, help="compare at most so many images")
    parser.add_argument("--json", action="store_true", help="print the whole report")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    with console.status(f"verify {arguments.export}"):
        report = verify_export(arguments.export, choose_verification(arguments))
    if arguments.json:
        print(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode())
    else:
        console.print(measure_table(report))
        print("verified" if report["passed"] else "rejected")
    if not report["passed"]:
        raise ConfigError(f"{arguments.export}: {'; '.join(report['failures'])}")


def choose_verification(arguments: argparse.Namespace) -> VerificationRecipe:
    """Return the recipe's, with the command line's values over it.

    What it says about its own images holds for no others.
    """
    manifest = read_manifest(arguments.export)
    names = ("images", "labels", "annotations", "count")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    own = manifest.verification.model_dump(exclude_none=True)
    if "images" in given:
        own = {key: value for key, value in own.items() if key not in (*names, "max_accuracy_drop")}
    return parse_config(VerificationRecipe, {**own, **given}, "command line")


def measure_table(report: Mapping[str, Any]) -> Table:
    """Return each measure with its bounds; then the accuracy of both, where it is known."""
    images = report["images"]
    title = f"{report['backend']} {report['precision']} against {report['reference']}"
    table = Table("measure", Column("measured", justify="right"), Column("asked", justify="right"), "met", title=title)
    table.caption = f"{images['count']} images of {images['source']}"
    for name, value in report["measured"].items():
        table.add_row(name, f"{value:.4g}", *judge(name, report))
    for owner, figures in (report["accuracy"] or {}).items():
        for name, value in figures.items():
            table.add_row(f"{name} of {owner}", f"{value:.4g}")
    return table


def judge(name: str, report: Mapping[str, Any]) -> tuple[str, str]:
    """Return what is asked of a measure, and whether it is met; empty where nothing is."""
    bounds = report["bounds"]
    asked = [f"{sign} {bounds[key]:g}" for sign, key in (("≥", f"min_{name}"), ("≤", f"max_{name}")) if key in bounds]
    failed = any(failure.startswith(f"{name} ") for failure in report["failures"])
    return ", ".join(asked), ("[red]no[/red]" if failed else "[green]yes[/green]") if asked else ""


if __name__ == "__main__":
    run(main)
