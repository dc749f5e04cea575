"""The values of docs/evidence/checkpoints.md."""

from pathlib import Path
from typing import Any

from lab.checkpoints.reading import CheckpointRow, read_results


def read_values(path: Path) -> dict[str, Any]:
    results = read_results(path)
    rows = results.rows
    return {
        "results": results,
        "loaded": [row for row in rows if row.first is None],
        "asked": [row for row in rows if row.first is not None and row.keys is not None],
        "refused": [row for row in rows if row.first is not None and row.keys is None],
        "equal": sum(row.difference == 0 for row in rows),
        "one_line": one_line,
    }


def one_line(row: CheckpointRow) -> str:
    """Return a refusal in one line of a table: of lines to write, the sentence before them."""
    return (row.first or "").partition("\n")[0].replace("`", "")
