"""The results file of a command that measures in rounds, what it prints of them, and a figure of a new process."""

import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from mar_tools.command_line import ROOT
from mar_tools.load_testing.reporting import describe_run

TIMEOUT_S = 300.0


def write_rounds(path: Path, rounds: Sequence[Mapping[str, float]], **more: Any) -> None:
    """Write all rounds to a results file, with the run that they are of, and print the median of each figure."""
    path.write_bytes(orjson.dumps(describe_run(**more, rounds=rounds), option=orjson.OPT_INDENT_2))
    for name in rounds[0]:
        print(f"{name}: {statistics.median(entry[name] for entry in rounds):,.1f}")


def measure_apart(module: str, *arguments: object) -> float:
    """Return the figure that a module of the laboratory prints, run in a new process."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    finished = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S, check=True)
    return round(float(finished.stdout), 1)
