"""The page with the pictures to look at, and the list of them as a file to label."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

from markupsafe import Markup

from mar_tools.predicting.inputs import find_item
from mar_tools.predicting.merging import write_new
from mar_tools.predicting.predictors import read_prediction
from mar_tools.predicting.rows import Answer
from mar_tools.reporting.page import FOLDER as REPORT
from mar_tools.reporting.page import open_templates
from mar_tools.reporting.pictures import LONGEST_SIDE, Picture, encode_small
from mar_tools.reviewing.choosing import Doubtful, Review, list_doubtful
from vision_serving.answers.drawing import draw_prediction, open_picture
from vision_serving.config import ImageLimits
from vision_serving.errors import ConfigError, RequestError

FOLDER = Path(__file__).resolve().parent
ANY_SIZE = ImageLimits(max_pixels=10**9)  # whoever predicted it has judged it
COLUMNS = ("path", "why", "doubt", "what")


@dataclass(frozen=True)
class Card:
    """A picture as the page shows it: once, or once for each result."""

    doubtful: Doubtful
    sides: Sequence[tuple[str, Picture]]


def write_sheet(found: Review, names: Sequence[str], page: Path) -> None:
    """Write the page. names: of one or two results. Raises ConfigError where the file is there."""
    text = render_sheet(found, names)

    def write(stream: IO[str]) -> None:
        stream.write(text)

    write_new(page, write)


def write_list(found: Review, file: Path) -> int:
    """Write the list as CSV: path, why, doubt, what. Return how many pictures are in it."""
    lines = list(list_doubtful(found))

    def write(stream: IO[str]) -> None:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(lines)

    write_new(file, write)
    return len(lines)


def render_sheet(found: Review, names: Sequence[str]) -> str:
    return (
        open_templates(FOLDER)
        .get_template("review.html.j2")
        .render(
            found=found,
            names=names,
            css=Markup((REPORT / "report.css").read_text(encoding="utf-8")),  # ours, and no foreign text in it
            written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            differing=[_show(doubtful, names) for doubtful in found.differing],
            unsure=[_show(doubtful, names[:1]) for doubtful in found.unsure],
            failed=sum(found.errors.values()),
        )
    )


def _show(doubtful: Doubtful, names: Sequence[str]) -> Card:
    answers = [doubtful.answer, *([doubtful.other] if doubtful.other else [])]
    return Card(doubtful, [(name, _draw(doubtful.path, answer)) for name, answer in zip(names, answers, strict=True)])


def _draw(path: str, answer: Answer) -> Picture:
    """Return the picture with its answer drawn, or why it cannot be shown."""
    try:
        picture = open_picture(find_item(path).read(), ANY_SIZE)
        return encode_small(draw_prediction(picture, read_prediction(answer)), LONGEST_SIDE)
    except (OSError, RequestError, ConfigError) as error:
        return Picture(problem=f"cannot be shown: {getattr(error, 'strerror', None) or error}")
