"""The rows of section B, and their run: those that need the same server share one."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from mar_tools.reliability import operations, overload, worker_faults
from mar_tools.reliability.archives import build_archives
from mar_tools.reliability.episodes import Row, observe
from mar_tools.reliability.findings import Finding
from mar_tools.reliability.world import open_world
from vision_serving.errors import ConfigError

ROWS = {row.name: row for row in (*worker_faults.ROWS, *overload.ROWS, *operations.ROWS)}


def choose_rows(wanted: Sequence[str]) -> list[Row]:
    """By their names; `B4` is every row whose name begins with `B4-`; all where none is named. Raises ConfigError."""
    for name in wanted:
        if not any(_is_meant(row, name) for row in ROWS.values()):
            raise ConfigError(f"no row {name!r}; there are {', '.join(ROWS)}")
    return [row for row in ROWS.values() if not wanted or any(_is_meant(row, name) for name in wanted)]


def _is_meant(row: Row, name: str) -> bool:
    return name.upper() in (row.name.upper(), row.name.upper().partition("-")[0])


def run_rows(
    rows: Sequence[Row], repetitions: int, seed: int, announce: Callable[[str], None], rate: float | None = None
) -> Iterator[Finding]:
    """Each row as soon as it is finished. rate: of the traffic; by default half of saturation. Raises ServerError."""
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        announce("building the archives")
        archives = build_archives(Path(folder))
        for settings, group in groupby(sorted(rows, key=_settings_of), _settings_of):
            announce("starting a server")
            with open_world(archives, dict(settings), rate=rate) as world:
                for row in group:
                    command = f"python scripts/run_chaos.py {row.name} --repetitions {repetitions} --seed {seed}"
                    yield observe(row, world, repetitions, seed, command, announce)


def _settings_of(row: Row) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(row.settings.items()))
