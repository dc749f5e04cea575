"""What people see of a command: tables of one style, and how far long work has come."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.markup import escape as escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, track
from rich.table import Column
from rich.table import Table as Table  # commands import these from here
from rich.text import Text as Text

from mar_tools.command_line import Announce

AnnounceStep = Callable[[str, int, int], None]  # what comes now, how many steps are done, of how many
Counted = TypeVar("Counted")

LOG_EVERY_S = 60.0


def new_table(*columns: Column | str, title: str | None = None, caption: str | None = None, gap: int = 2) -> Table:
    """Return a table in the one style of this project, for 80 columns. Cells wrap where a terminal is narrow."""
    table = Table(
        *columns,
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, gap - 1, 0, 0),
        title=title,
        caption=caption,
    )
    table.title_justify = table.caption_justify = "left"
    return table


def number_column(heading: str) -> Column:
    """Return a column for figures, which never break."""
    return Column(heading, justify="right", no_wrap=True)


def name_column(heading: str) -> Column:
    """Return a column for names and paths, which break anywhere and are never cut."""
    return Column(heading, overflow="fold", min_width=10)


def print_tables(*tables: RenderableType, to_stderr: bool = False) -> None:
    """Print tables, which fit the terminal, and text as it is, with a free line between them."""
    console = Console(stderr=to_stderr, highlight=False, emoji=False)
    for number, table in enumerate(tables):
        if number:
            console.print()
        for part in table.renderables if isinstance(table, Group) else [table]:
            is_text = isinstance(part, str | Text)
            console.print(part, soft_wrap=is_text, markup=not is_text)


def is_watched() -> bool:
    """Return whether standard error is a terminal. Rich also says so where FORCE_COLOR is set, as in notebooks."""
    return sys.stderr.isatty()


@contextmanager
def show_steps(title: str, unit: str = "step") -> Iterator[AnnounceStep]:
    """Show long work on standard error: a bar on a terminal, a line a step elsewhere."""
    console = Console(stderr=True)
    if not is_watched():
        yield lambda step, done, total: print_line(f"{title}: {unit} {done + 1} of {total}, {step}")
        return
    columns = (
        TextColumn(title),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda step, done, total: progress.update(task, description=step, completed=done, total=total)


@contextmanager
def show_work(title: str, silent_elsewhere: bool = False) -> Iterator[Announce]:
    """Show uncounted work on standard error: beside a spinner on a terminal, a line a step elsewhere, or nothing."""
    console = Console(stderr=True)
    if not is_watched():
        log: Announce = (lambda line: None) if silent_elsewhere else print_line
        log(title)
        yield log
        return
    with console.status(title) as status:
        yield status.update


def show_items(items: Iterable[Counted], title: str, total: int, hidden: bool = False) -> Iterator[Counted]:
    """Pass many items on, and show how many there were: by a bar on a terminal, by a line a minute elsewhere."""
    console = Console(stderr=True)
    if is_watched():
        yield from track(items, title, total=total, console=console, transient=True, disable=hidden)
        return
    told = time.monotonic()
    for number, item in enumerate(items):
        if time.monotonic() - told >= LOG_EVERY_S:
            told = time.monotonic()
            print_line(f"{title}: {number} of {total}")
        yield item


def print_line(line: str) -> None:
    """Print it on standard error, above a bar where there is one."""
    print(line, file=sys.stderr, flush=True)
