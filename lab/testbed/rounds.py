"""The results file of a command that measures in rounds, and what it prints of them."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from mar_tools.load_testing.reporting import describe_run


def write_rounds(path: Path, rounds: Sequence[Mapping[str, float]], **more: Any) -> None:
    """Write all rounds to a results file, with the run that they are of, and print the median of each figure."""
    path.write_bytes(orjson.dumps(describe_run(**more, rounds=rounds), option=orjson.OPT_INDENT_2))
    for name in rounds[0]:
        print(f"{name}: {statistics.median(entry[name] for entry in rounds):,.1f}")
