"""The rows of the reliability page, and what was seen of each: a results file, written by the command that saw it."""

import os
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import orjson
from pydantic import Field

from mar_tools.machine import describe_machine
from vision_serving.validation import StrictModel, parse_config, read_json

RESULTS = Path(__file__).resolve().parents[1] / "results" / "reliability"
CLAIMS = {
    "A1": "hostile requests among good ones",
    "A2": "any item of a batch bad, through TorchServe's own service code",
    "A3": "decompression bombs",
    "A4": "damaged and odd pictures and bodies",
    "A5": "answers that would end a worker",
    "A6": "fuzzing",
    "B1": "one worker killed",
    "B2": "both workers killed",
    "B3": "one worker stopped",
    "B4-deadlock": "the handler waits for a lock for ever",
    "B4-loop": "an endless loop in C in the handler",
    "B4-exit": "the handler ends its process",
    "B4-segfault": "a segmentation fault in the handler",
    "B5": "8 GB allocated in the handler",
    "B6": "a model that cannot load beside a healthy one",
    "B7": "more requests than the queue holds",
    "B8": "clients that disconnect",
    "B9": "bodies too large, endless, cut, and slow",
    "B10": "drain and stop",
    "B11": "register, scale, unregister",
    "B12": "the frontend killed",
    "B13": "one server after the other restarted, behind a front",
    "C1": "corrupt and hostile archives",
    "C2": "flipped bytes",
    "C3": "reproducible archives",
    "C4": "listening addresses",
    "C5": "access without a token",
    "C6": "signed archives",
    "C7": "known vulnerabilities: docs/operate/audit.md",
    "D-10": "10 minutes of half load, with hostile requests and clients that leave",
    "D-60": "60 minutes of it",
    "D-malformed": "requests that are hardly HTTP",
    "E1": "forms of many parts",
    "E2": "bodies of the largest size at once",
    "E3": "explanations and other costly requests",
    "E4": "files that make decoders write, loop or allocate",
    "E5": "wrong and removed keys, and connections without one",
    "E6": "other users of the machine",
    "E7": "a machine that lacks something",
}
BY_TESTS_ALONE = ("A2", "C3", "C4", "C5", "C6")  # all others are measured by a command, whatever tests show too


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


@dataclass
class Episode:
    """What was seen once. failures: all of them. problems: what did not hold of what must."""

    figures: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    patience: float = 1.0  # times that bounds in seconds are multiplied with, where they are not what is tested

    def require(self, condition: bool, otherwise: str) -> None:
        if not condition:
            self.problems.append(otherwise)

    def bound(self, name: str, value: float, most: float, unit: str = "") -> None:
        """Note a figure that may not be more than that."""
        self.figures[name] = round(value, 3)
        self.require(value <= most, f"{name}: {value:.4g}{unit}, and {most:g}{unit} are allowed")

    def bound_time(self, name: str, seconds: float | None, most_s: float) -> None:
        """Bound the time as `bound` does. None: it was never reached."""
        most_s *= self.patience
        if seconds is None:
            self.problems.append(f"{name}: not within {most_s:g} s")
        else:
            self.bound(name, seconds, most_s, " s")

    def as_finding(self, row: str, fault: str, must_hold: str, command: str, repetitions: int = 1) -> Finding:
        return Finding(
            row=row,
            fault=fault,
            must_hold=must_hold,
            held=not self.problems,
            repetitions=repetitions,
            measured=self.figures,
            problems=tuple(self.problems),
            failures=tuple(self.failures),
            command=command,
        )


def write_finding(finding: Finding, folder: Path = RESULTS) -> Path:
    """Write `<folder>/<row>.json`, whole or not at all, with today's date and this machine in it."""
    folder.mkdir(parents=True, exist_ok=True)
    dated = finding.model_copy(update={"machine": describe_machine(), "date": date.today().isoformat()})
    path = folder / f"{finding.row}.json"
    write_whole(path, orjson.dumps(dated.model_dump(mode="json"), option=orjson.OPT_INDENT_2).decode() + "\n")
    return path


def write_whole(path: Path, text: str) -> None:
    """Write all of a file or, where we are interrupted, nothing. Several processes may write the same one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def read_findings(folder: Path = RESULTS) -> dict[str, Finding]:
    """Read findings by row, in the order of their names. Raises ConfigError for a file that is none."""
    return {path.stem: parse_config(Finding, read_json(path), str(path)) for path in sorted(folder.glob("*.json"))}
