"""The rows that run_chaos.py measures, and their run: those that need the same server share one."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from lab.hostile import rows as hostile_rows
from lab.reliability import (
    archive_rows,
    client_attacks,
    machine_attacks,
    operations,
    overload,
    rolling_restarts,
    worker_faults,
)
from lab.reliability.episodes import FaultRow, observe_row
from lab.testbed.archives import build_archives
from lab.testbed.findings import Finding
from lab.testbed.world import open_world
from vision_serving.errors import ConfigError

ROWS = {
    row.name: row
    for row in (
        *worker_faults.ROWS,
        *overload.ROWS,
        *operations.ROWS,
        *rolling_restarts.ROWS,
        *client_attacks.ROWS,
        *machine_attacks.ROWS,
    )
}
NAMES = (*hostile_rows.ROWS, *ROWS, *archive_rows.ROWS)


def choose_rows(wanted: Sequence[str]) -> list[str]:
    """Return names: `B4` is every row `B4-...`, `B` its section, nothing is all. Raises ConfigError."""
    for name in wanted:
        if not any(_is_meant(row, name) for row in NAMES):
            raise ConfigError(f"no row {name!r}; there are {', '.join(NAMES)}")
    return [row for row in NAMES if not wanted or any(_is_meant(row, name) for name in wanted)]


def _is_meant(row: str, name: str) -> bool:
    return name.upper() in (row.upper(), row.upper().partition("-")[0], row[0])


def run_rows(
    names: Sequence[str],
    repetitions: int,
    seed: int,
    announce: Callable[[str], None],
    rate: float | None = None,
    fuzz_s: int = 60,
) -> Iterator[Finding]:
    """Yield each row as soon as it is finished.

    repetitions, rate: of sections B and E; the rate of its traffic is half of saturation by default. fuzz_s: of A6.
    Raises ServerError.
    """
    yield from hostile_rows.observe_hostile_rows(names, seed, fuzz_s, announce)
    yield from observe_faults([ROWS[name] for name in names if name in ROWS], repetitions, seed, announce, rate)
    yield from archive_rows.observe_archive_rows(names, seed, announce)


def observe_faults(
    rows: Sequence[FaultRow], repetitions: int, seed: int, announce: Callable[[str], None], rate: float | None
) -> Iterator[Finding]:
    if not rows:
        return
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        announce("building the archives of sections B and E")
        archives = build_archives(Path(folder))
        for settings, group in groupby(sorted(rows, key=_settings_of), _settings_of):
            announce("starting a server")
            with open_world(archives, dict(settings), rate=rate) as world:
                for row in group:
                    times = 1 if row.once else repetitions
                    options = f"--repetitions {times} --seed {seed}" + (f" --rate {rate:g}" if rate else "")
                    command = f"python lab/run_chaos.py {row.name} {options}"
                    yield observe_row(row, world, times, seed, command, announce)


def _settings_of(row: FaultRow) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(row.settings.items()))
