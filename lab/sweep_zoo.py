"""Build and verify the model zoo on every CPU backend and precision.

    python lab/sweep_zoo.py                                  # all that is not known yet; Ctrl-C and go on later
    python lab/sweep_zoo.py --models 'resnet*' detection/* --backends openvino --precisions int8
    python lab/sweep_zoo.py --again failed                   # all that is known not to be verified
    python lab/sweep_zoo.py --list                           # the models, and how many rows each has left

Writes lab/results/compatibility.json and docs/evidence/compatibility.md. Each model has random weights.
--timed says that nothing else ran on the machine: the page then trusts the times.
"""

import runpy
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

from rich.console import Console
from rich.progress import track

from mar_tools.command_line import ROOT, new_parser, run

if TYPE_CHECKING:  # they import PyTorch, which --help needs not
    from lab.sweeping.coverage import CoverageRow
    from lab.sweeping.plan import SweepTask

OUTPUT = ROOT / "lab" / "results" / "compatibility.json"


def main() -> None:
    arguments = parse_arguments()
    from lab.pages.rendering import write_page
    from lab.sweeping.coverage import read_coverage
    from lab.sweeping.execution import Limits, describe_sweep, sweep
    from lab.sweeping.plan import Selection, make_plan
    from lab.sweeping.zoo import list_zoo

    selection = Selection(arguments.models, arguments.backends, arguments.precisions, arguments.again)
    plan = make_plan(list_zoo(), selection, read_coverage(arguments.output))
    if arguments.list:
        print_models(plan)
        return
    limits = Limits(arguments.timeout_s, arguments.memory_gib)
    rows = sweep(plan, arguments.output, describe_sweep(arguments.timed), limits)
    total = sum(len(task.precisions) for tasks in plan for task in tasks)
    console = Console(stderr=True)
    try:
        for row in track(rows, "sweeping", total, console=console, disable=not console.is_terminal):
            console.print(describe_row(row), markup=False, highlight=False, soft_wrap=True)
    finally:  # the rows that are there are kept, so the page shows them
        write_page("compatibility", arguments.output)


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--models", nargs="+", metavar="NAME", help="names, or patterns such as 'resnet*' and 'timm/*'")
    parser.add_argument("--backends", nargs="+")
    parser.add_argument("--precisions", nargs="+", help="fp32 bf16 int8")
    parser.add_argument("--again", nargs="?", const="all", default="nothing", choices=["failed", "all", "nothing"])
    parser.add_argument("--timed", action="store_true", help="the machine does nothing else")
    parser.add_argument("--timeout-s", type=float, default=300.0, help="for one row (default: 300)")
    parser.add_argument("--memory-gib", type=float, default=16.0, help="for one row (default: 16)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the json; the page lies beside it")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


def print_models(plan: "list[list[SweepTask]]") -> None:
    left: Counter[str] = Counter()
    for tasks in plan:
        for task in tasks:
            left[f"{task.model.group}/{task.model.name}"] += len(task.precisions)
    for name, count in left.items():
        print(f"{name}: {count}")
    print(f"{left.total()} rows left of {len(left)} models")


def describe_row(row: "CoverageRow") -> str:
    boxes = None if row.matched_boxes is None else 100 * row.matched_boxes
    figures = {"dB": row.snr_db, "% boxes": boxes, "ms": row.ms, "s": row.seconds, "GiB": row.peak_gib}
    measured = ", ".join(f"{value:.4g} {unit}" for unit, value in figures.items() if value is not None)
    reason = "" if row.reason is None else f": {row.reason}"
    return f"{row.model} {row.backend} {row.precision}: {row.status} ({measured}){reason}"


if __name__ == "__main__":
    run(main)
