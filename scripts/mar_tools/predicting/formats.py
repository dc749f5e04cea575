"""Forms in which the answers for many files are written, as they come: what was written stays if the work is cut short.

Each function gives, as a context, the function that writes the answer for one file.

No name of a file ends a run: `show_name` gives it to programs, `show_line` to people.
"""

import csv
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias

import orjson
from rich.console import Console
from rich.table import Table

from mar_tools.images import show_line, show_name
from mar_tools.predicting.coco_results import CocoIds, make_annotation_file, to_results
from mar_tools.predicting.predictors import tell_apart
from mar_tools.predicting.rows import Answer, has_failed
from mar_tools.terminal import Text, name_column, new_table, number_column

Write: TypeAlias = Callable[[Path | str, Answer], None]
NewWriter: TypeAlias = Callable[[IO[str]], AbstractContextManager[Write]]

SHOWN_NUMBERS = 4  # of an embedding, in a table
CSV_COLUMNS = ("file", "class_id", "label", "score", "x1", "y1", "x2", "y2", "error")


def list_classes_or_boxes(answer: Answer) -> list[dict[str, Any]]:
    """Return the classes or detections of an answer; none of an error."""
    entries: list[dict[str, Any]] = answer.get("classes", []) + answer.get("detections", [])
    return entries


def format_error(answer: Answer) -> str:
    return f"{answer['code']} {answer['type']}: {answer['message']}"


def describe(answer: Answer) -> str:
    """Return an answer without classes and boxes in a line."""
    if has_failed(answer):
        return format_error(answer)
    vector: list[float] = answer.get("embedding", [])
    if not vector:
        return "nothing found"
    return f"{len(vector)} numbers: {', '.join(f'{value:.3g}' for value in vector[:SHOWN_NUMBERS])}, ..."


@contextmanager
def write_table(stream: IO[str]) -> Iterator[Write]:
    """Write for people; printed when the last answer is there, as the columns are then known."""
    answers: list[tuple[Path | str, Answer]] = []
    try:
        yield lambda file, answer: answers.append((file, answer))
    finally:
        if answers:
            Console(file=stream).print(_answer_table(answers))


def _answer_table(answers: list[tuple[Path | str, Answer]]) -> Table:
    boxes = any("detections" in answer for _, answer in answers)
    table = new_table(name_column("image"), "label", number_column("score"), *([number_column("box")] if boxes else []))
    names = tell_apart(file for file, _ in answers)
    for file, answer in answers:
        entries, name = list_classes_or_boxes(answer), Text(show_line(names[file]))  # a str would be read as markup
        if not entries:
            table.add_row(name, Text(show_line(describe(answer))))
        for index, entry in enumerate(entries):
            box = ", ".join(f"{side:g}" for side in entry.get("box", []))
            cells = [name if index == 0 else "", Text(show_line(entry["label"])), f"{entry['score']:.3f}"]
            table.add_row(*cells, *([box] if boxes else []))
    return table


@contextmanager
def write_json_lines(stream: IO[str]) -> Iterator[Write]:
    """Write a line of JSON for each file: its name and the answer, or the error."""

    def write(file: Path | str, answer: Answer) -> None:
        stream.write(orjson.dumps({"file": show_name(file), **answer}, option=orjson.OPT_APPEND_NEWLINE).decode())
        stream.flush()

    yield write


@contextmanager
def write_csv(stream: IO[str]) -> Iterator[Write]:
    """Write a row for each class or box; one without them for an image with nothing in it, or with an error."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)

    def write(file: Path | str, answer: Answer) -> None:
        for entry in list_classes_or_boxes(answer):
            box = entry.get("box", ("", "", "", ""))
            writer.writerow((show_name(file), entry["class_id"], entry["label"], entry["score"], *box, ""))
        if not list_classes_or_boxes(answer):
            nothing = [""] * (len(CSV_COLUMNS) - 2)
            writer.writerow((show_name(file), *nothing, format_error(answer) if has_failed(answer) else ""))
        stream.flush()

    yield write


@contextmanager
def write_coco(stream: IO[str], ids: CocoIds, images_file: Path | None = None) -> Iterator[Write]:
    """Write a COCO results file, with errors on standard error. images_file: where the ids are written to."""
    answers: list[tuple[Path | str, Answer]] = []
    separator = "["

    def write(file: Path | str, answer: Answer) -> None:
        nonlocal separator
        if has_failed(answer):
            print(f"{show_line(file)}: {format_error(answer)}", file=sys.stderr)
        for result in to_results(file, answer, ids):
            stream.write(separator + orjson.dumps(result).decode())
            separator = ",\n"
        stream.flush()
        answers.append((file, answer))

    try:
        yield write
    finally:
        stream.write("[]\n" if separator == "[" else "]\n")
        if images_file is not None and answers:
            images_file.write_bytes(orjson.dumps(make_annotation_file(answers, ids)))


FORMATS: dict[str, NewWriter] = {
    "table": write_table,
    "json-lines": write_json_lines,
    "csv": write_csv,
}
COCO = "coco"
