"""The values of docs/evidence/published.md."""

from pathlib import Path
from typing import Any

import orjson

from lab.pages.formatting import format_percent


def read_values(path: Path) -> dict[str, Any]:
    document = orjson.loads(path.read_bytes())
    rows = document["rows"]
    return {
        "date": document["date"],
        "rows": rows,
        "cells": make_cells,
        "agreeing": [row["model"] for row in rows if agrees(row["first"]) or agrees(row.get("changed", {}))],
        "at_once": [row["model"] for row in rows if agrees(row["first"])],
    }


def agrees(found: dict[str, Any]) -> bool:
    """Return whether all classes are the author's, and boxes lie on the author's."""
    return found.get("same") == 1 and found.get("mean_iou", 1) >= LEAST_IOU


LEAST_IOU = 0.95


def make_cells(row: dict[str, Any]) -> list[str]:
    """Return the cells of a model's line."""
    first, changed = row["first"], row.get("changed")
    last = [] if changed is None else [f"{len(row['changes'])} keys: {describe(changed)}"]
    seconds = "" if "refused" in first else f"{first['seconds']:.0f} s"
    return [row["model"], row["kind"], describe(first), seconds, *(last or ["none"])]


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
