"""Compare our preprocessing and answers with those of the library that a model comes from.

    python lab/measure_fidelity.py                               # all models, some minutes
    python lab/measure_fidelity.py --models 'timm/*' '*resnet50*' # some, shown and not written
    python lab/measure_fidelity.py --list

Writes lab/results/fidelity.json and docs/evidence/fidelity.md.

Nothing is downloaded: preprocessing needs no weights, and the networks have random ones. Needs requirements/lab.txt.
"""

import runpy
from argparse import Namespace
from collections.abc import Sequence
from datetime import date
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

from rich.console import Console
from rich.progress import track

from mar_tools.command_line import ROOT, new_parser, run
from mar_tools.machine import cpu_name, package_versions
from vision_serving.errors import ConfigError

if TYPE_CHECKING:  # they import PyTorch, which --help needs not
    from lab.fidelity.compared_models import ModelCase
    from lab.fidelity.results import Fidelity, ModelFidelity

OUTPUT = ROOT / "lab" / "results" / "fidelity.json"
PACKAGES = ("torch", "torchvision", "timm", "transformers", "pillow", "numpy")


def main() -> None:
    arguments = parse_arguments()
    from lab.fidelity.results import write_fidelity
    from lab.pages.rendering import write_page

    cases = choose_cases(arguments.models)
    if arguments.list:
        print("\n".join(case.full_name for case in cases))
        return
    fidelity = measure_models(cases)
    if not arguments.models:
        write_fidelity(fidelity, arguments.output)
        write_page("fidelity", arguments.output)


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--models", nargs="+", metavar="PATTERN", help="of `library/model`, as --list shows them")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the json; the page lies beside it")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


def choose_cases(patterns: Sequence[str] | None) -> "list[ModelCase]":
    """Raises ConfigError for a pattern that fits no model."""
    from lab.fidelity.comparison import list_cases

    cases = list_cases()
    for pattern in patterns or ():
        if not any(fnmatch(case.full_name, pattern) for case in cases):
            raise ConfigError(f"no model fits {pattern!r}; --list shows them")
    return [case for case in cases if not patterns or any(fnmatch(case.full_name, pattern) for pattern in patterns)]


def measure_models(cases: "Sequence[ModelCase]") -> "Fidelity":
    from lab.fidelity.comparison import measure_case
    from lab.fidelity.pictures import make_pictures
    from lab.fidelity.results import Fidelity

    console = Console(stderr=True)
    pictures = make_pictures()
    rows = []
    for case in track(cases, "comparing", console=console, disable=not console.is_terminal):
        rows.append(measure_case(case, pictures))
        console.print(describe_fidelity(rows[-1]), markup=False, highlight=False, soft_wrap=True)
    versions = package_versions(PACKAGES)
    return Fidelity(date=date.today().isoformat(), cpu=cpu_name(), versions=versions, rows=tuple(rows))


def describe_fidelity(row: "ModelFidelity") -> str:
    pixels = row.pixels
    differ = f"{100 * pixels.other_level:.3f} % of values differ, at most {pixels.largest:g} levels"
    return f"{row.full_name}: {differ} ({row.seconds} s)"


if __name__ == "__main__":
    run(main)
