"""What is known so far: one row a line of `lab/results/compatibility.json`, in a fixed order for git."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import orjson
from pydantic import Field

from lab.sweeping.zoo import GROUPS, Group
from lab.testbed.findings import write_whole
from vision_serving.config import Precision
from vision_serving.validation import StrictModel, parse_config, read_json

Status = Literal["verified", "rejected", "not supported", "failed", "crashed", "timed out"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")
RowKey = tuple[Group, str, str, Precision]  # group, model, backend, precision


class RowOutcome(StrictModel):
    """What became of one model on one backend in one precision.

    verified       within every bound
    rejected       it runs, and its answers differ too much: `reason` names the broken bounds
    not supported  an exporter or backend refused it: `reason` is its message
    failed         an exception that a library raised, with its name
    crashed        the end of the process, or as much memory as was allowed
    timed out      stopped after as long as was allowed

    ms: of one image, from pixels to outputs.
    """

    status: Status
    reason: str | None = None
    snr_db: float | None = None
    matched_boxes: float | None = None
    ms: float | None = None


class CoverageRow(RowOutcome):
    """seconds, peak_gib: of its process, start and imports included. run: the `id` of its SweepRun."""

    group: Group
    model: str
    backend: str
    precision: Precision
    seconds: float
    peak_gib: float
    run: int

    @property
    def key(self) -> RowKey:
        return self.group, self.model, self.backend, self.precision

    def position(self) -> tuple[int, str, str, int]:
        return list(GROUPS).index(self.group), self.model, self.backend, PRECISIONS.index(self.precision)


class SweepRun(StrictModel):
    """Where rows come from. timed: whether the machine did nothing else, so that times mean something."""

    id: int
    date: str
    cpu: str
    cores: int
    timed: bool
    versions: Mapping[str, str]


class Coverage(StrictModel):
    runs: tuple[SweepRun, ...] = ()
    rows: tuple[CoverageRow, ...] = Field(default=())

    @property
    def by_key(self) -> dict[RowKey, CoverageRow]:
        return {row.key: row for row in self.rows}

    def with_row(self, row: CoverageRow, run: SweepRun) -> "Coverage":
        """Return it with the row for an older one. Equal runs are one, and runs without rows are left out."""
        same = next((known.id for known in self.runs if known == run.model_copy(update={"id": known.id})), None)
        new_id = max((known.id for known in self.runs), default=0) + 1 if same is None else same
        rows = {**self.by_key, row.key: row.model_copy(update={"run": new_id})}
        runs = {known.id: known for known in (*self.runs, run.model_copy(update={"id": new_id}))}
        used = {kept.run for kept in rows.values()}
        ordered = sorted(rows.values(), key=CoverageRow.position)
        return Coverage(runs=tuple(runs[number] for number in sorted(used)), rows=tuple(ordered))


def read_coverage(path: Path) -> Coverage:
    """Read what is known so far; nothing where there is no such file. Raises ConfigError for a damaged one."""
    if not path.is_file():
        return Coverage()
    document = read_json(path, "restore it from git, or delete it to begin again")
    return parse_config(Coverage, document, str(path))


def write_coverage(coverage: Coverage, path: Path) -> None:
    """Write all of it or, where we are interrupted, nothing."""
    lines = {
        "runs": [run.model_dump(mode="json") for run in coverage.runs],
        "rows": [row.model_dump(mode="json", exclude_none=True) for row in coverage.rows],
    }
    parts = [f'"{name}": [\n{_one_a_line(entries)}]' for name, entries in lines.items()]
    write_whole(path, "{\n" + ",\n".join(parts) + "\n}\n")


def _one_a_line(entries: list[dict[str, object]]) -> str:
    return "".join(
        f"{orjson.dumps(entry, option=orjson.OPT_SORT_KEYS).decode()}{',' if entry is not entries[-1] else ''}\n"
        for entry in entries
    )
