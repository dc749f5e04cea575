"""The values of docs/evidence/fidelity.md."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.fidelity.compared_models import READER, Library
from lab.fidelity.pictures import SIZES_HW
from lab.fidelity.results import AnswerDifference, ModelFidelity, read_fidelity
from lab.pages.formatting import format_percent

LIBRARY_TITLES: dict[Library, str] = {"torchvision": "torchvision", "timm": "timm", "huggingface": "transformers"}
LONG_NUMBER = re.compile(r"\d+\.\d{4,}")


def read_values(path: Path) -> dict[str, Any]:
    fidelity = read_fidelity(path)
    sizes = sorted(SIZES_HW, key=lambda size: size[0] * size[1])
    by_library = {
        title: [row for row in fidelity.rows if row.library == name] for name, title in LIBRARY_TITLES.items()
    }
    libraries = {title: rows for title, rows in by_library.items() if rows}
    return {
        "fidelity": fidelity,
        "libraries": libraries,
        "summary": {title: summarise_models(rows) for title, rows in {**libraries, "all": fidelity.rows}.items()},
        "sizes": [" x ".join(map(str, size)) for size in sizes],
        "reader": READER,
        "cells": make_cells,
    }


def summarise_models(rows: Sequence[ModelFidelity]) -> dict[str, Any]:
    answers = [row.answers for row in rows if row.answers is not None]
    classes = [answer.same_best for answer in answers if answer.same_best is not None]
    boxes = [answer.matched_boxes for answer in answers if answer.matched_boxes is not None]
    return {
        "models": len(rows),
        "equal": sum(row.pixels.other_level == 0 for row in rows),
        "within_one": sum(row.pixels.beyond_one == 0 for row in rows),
        "largest": max(row.pixels.largest for row in rows),
        "classes": sum(classes) / len(classes) if classes else None,
        "boxes": sum(boxes) / len(boxes) if boxes else None,
        "fewest_boxes": min(boxes, default=None),
    }


def make_cells(row: ModelFidelity) -> list[str]:
    """Return the cells of a model's line."""
    pixels = row.pixels
    return [
        f"{row.model}{' `*`' if row.network else ''}",
        LONG_NUMBER.sub(lambda number: f"{float(number[0]):.4g}", row.settings),
        format_percent(pixels.other_level, 2),
        format_percent(pixels.beyond_one, 4) if pixels.beyond_one else "0",
        f"{pixels.largest:g}",
        *(["", "", ""] if row.answers is None else _answer_cells(row.answers)),
    ]


def _answer_cells(answers: AnswerDifference) -> list[str]:
    if answers.matched_boxes is None:
        cells = [f"{format_percent(answers.same_best or 0.0)} of {answers.pictures}", f"{answers.snr_db:.0f} dB"]
    else:
        share = format_percent(answers.matched_boxes)
        cells = [f"{share} of {answers.compared_boxes} boxes", f"IoU {answers.least_iou:.3f}"]
    return [*cells, f"{answers.difference:.1g}" if answers.difference else "< 1e-6"]
