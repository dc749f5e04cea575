"""What was seen of one row of the reliability page: a results file for each, written by the command that saw it."""

import os
from datetime import date
from pathlib import Path
from typing import Any

import orjson
from pydantic import Field

from mar_tools.machine import describe_machine
from vision_serving.validation import StrictModel, parse_config, read_json

RESULTS = Path(__file__).resolve().parents[1] / "results" / "reliability"


class Finding(StrictModel):
    """One row, measured.

    row: "B1". fault: what was done. must_hold: in words and numbers. measured: figures, shown as they are.
    held: whether what must hold did, in every repetition. problems: what did not.
    failures: every one that was seen, allowed or not, never averaged away.
    """

    row: str
    fault: str
    must_hold: str
    held: bool
    repetitions: int
    measured: dict[str, Any]
    problems: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    command: str
    machine: dict[str, Any] = Field(default={})
    date: str = ""


def write_finding(finding: Finding, folder: Path = RESULTS) -> Path:
    """Write `<folder>/<row>.json`, whole or not at all, with today's date and this machine in it."""
    folder.mkdir(parents=True, exist_ok=True)
    dated = finding.model_copy(update={"machine": describe_machine(), "date": date.today().isoformat()})
    path, temporary = folder / f"{finding.row}.json", folder / f".{finding.row}.json"
    temporary.write_bytes(orjson.dumps(dated.model_dump(mode="json"), option=orjson.OPT_INDENT_2) + b"\n")
    os.replace(temporary, path)
    return path


def read_findings(folder: Path = RESULTS) -> dict[str, Finding]:
    """Read findings by row, in the order of their names. Raises ConfigError for a file that is none."""
    return {path.stem: parse_config(Finding, read_json(path), str(path)) for path in sorted(folder.glob("*.json"))}
