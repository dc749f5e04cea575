"""What lab/sweep_zoo.py does."""

from argparse import Namespace
from collections import Counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lab.pages.rendering import write_page
from lab.sweeping.coverage import Coverage, CoverageRow, read_coverage
from lab.sweeping.execution import Limits, describe_sweep, sweep
from lab.sweeping.plan import Selection, SweepTask, make_plan
from lab.sweeping.zoo import list_zoo


def sweep_zoo(arguments: Namespace) -> None:
    """Build what the plan asks for and write the page, or list it."""
    coverage = read_coverage(arguments.output)
    plan = new_plan(arguments, coverage)
    if arguments.list:
        list_models(plan)
        return
    limits = Limits(arguments.timeout_s, arguments.memory_gib)
    with SweepProgress(sum(len(task.precisions) for tasks in plan for task in tasks)) as progress:
        try:
            sweep(plan, arguments.output, describe_sweep(arguments.timed), limits, progress)
        finally:  # the rows that are there are kept, so the page shows them
            write_page("compatibility", arguments.output)


def new_plan(arguments: Namespace, coverage: Coverage) -> list[list[SweepTask]]:
    selection = Selection(
        models=arguments.models,
        backends=arguments.backends,
        precisions=arguments.precisions,
        passes=arguments.passes,
        again=arguments.again,
    )
    return make_plan(list_zoo(), selection, coverage)


def list_models(plan: list[list[SweepTask]]) -> None:
    left: Counter[str] = Counter()
    for tasks in plan:
        for task in tasks:
            left[f"{task.model.group}/{task.model.name}"] += len(task.precisions)
    for name, count in left.items():
        print(f"{name}: {count}")
    print(f"{left.total()} rows left of {len(left)} models")


class SweepProgress:
    """A bar with the row that is being made and the counts so far; one line a row where nobody watches."""

    def __init__(self, total: int) -> None:
        self.counts: Counter[str] = Counter()
        self.total = total
        self.console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bar = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.bar.add_task("", total=total)

    def __enter__(self) -> "SweepProgress":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def begins(self, model: str, backend: str, precision: str) -> None:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(self.counts.items()))
        self.bar.update(self.task, description=f"{model} {backend} {precision} ({counts or 'the first row'})")

    def ends(self, row: CoverageRow) -> None:
        self.counts[row.status] += 1
        self.bar.advance(self.task)
        if not self.console.is_terminal or row.status != "verified":
            number = f"{self.counts.total()}/{self.total}"
            self.console.print(f"[{number}] {describe_row(row)}", markup=False, highlight=False, soft_wrap=True)


def describe_row(row: CoverageRow) -> str:
    boxes = None if row.matched_boxes is None else 100 * row.matched_boxes
    figures = {"dB": row.snr_db, "% boxes": boxes, "ms": row.ms, "s": row.seconds, "GiB": row.peak_gib}
    measured = ", ".join(f"{value:.4g} {unit}" for unit, value in figures.items() if value is not None)
    reason = "" if row.reason is None else f": {row.reason}"
    return f"{row.model} {row.backend} {row.precision}: {row.status} ({measured}){reason}"
