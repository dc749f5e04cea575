"""The values of docs/evidence/published.md."""

from pathlib import Path
from typing import Any

import orjson

from lab.pages.formatting import format_percent
from lab.published.models import agrees


def read_values(path: Path) -> dict[str, Any]:
    document = orjson.loads(path.read_bytes())
    rows = document["rows"]
    return {
        "date": document["date"],
        "rows": rows,
        "cells": make_cells,
        "agreeing": [row["model"] for row in rows if agrees(row["first"]) or agrees(row.get("hinted", {}))],
        "at_once": [row["model"] for row in rows if agrees(row["first"])],
    }


def make_cells(row: dict[str, Any]) -> list[str]:
    """Return the cells of a model's line."""
    first, hinted = row["first"], row.get("hinted")
    last = "not needed" if hinted is None else f"`--like {row['hint']}`: {describe(hinted)}"
    seconds = "" if "refused" in first else f"{first['seconds']:.0f} s"
    return [row["model"], row["kind"], describe(first), seconds, last]


def describe(found: dict[str, Any]) -> str:
    if "refused" in found:
        return f"refused: {found['refused']}"
    if not found["count"]:
        return "the author's program finds nothing"
    parts = [f"{format_percent(found['same'])} of {found['count']} classes"]
    if "mean_iou" in found:
        parts.append(f"IoU {found['mean_iou']:.3f}, {found['extra']:+d} boxes")
    if found["score_difference"] is not None:
        parts.append(f"scores within {found['score_difference']:.2g}")
    return ", ".join(parts)
