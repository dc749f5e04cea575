"""Which labels a file says that pictures show: a JSON object, or a table as spreadsheets save it."""

import csv
import io
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from vision_serving.errors import ConfigError
from vision_serving.validation import read_json, read_text

SEPARATORS = re.compile(r"[|;,]")
DELIMITERS = ",;\t"
TICKS = {"1": True, "1.0": True, "0": False, "0.0": False, "": False}
Shown = dict[str, list[str]]  # a picture, or a folder whose pictures are all alike -> its labels or class ids


def read_picture_labels(path: Path, known: Collection[str]) -> Shown:
    """Read a file of one of three forms. Raises ConfigError for another one, and for a label that is not `known`.

    JSON     {"a.jpg": ["cat", "dog"], "empty": []}
    a list   a header `file,labels`, then lines `a.jpg,cat|dog`; separated by |, ; or blanks, or with a line for each
    a table  a header `file,cat,dog`, then lines `a.jpg,1,0`
    """
    shown = _read_object(path) if path.suffix.lower() == ".json" else _read_table(path, known)
    for key, labels in shown.items():
        for label in labels:
            if label not in known:
                raise ConfigError(f"{path}: {key}: {label!r} is neither a label of this model nor a class id")
    return shown


def _read_object(path: Path) -> Shown:
    content = read_json(path)
    if not isinstance(content, dict):
        raise ConfigError(f'{path}: expected a JSON object {{"a.jpg": ["cat", "dog"]}}, got {type(content).__name__}')
    return {key: list(map(str, found if isinstance(found, list) else [found])) for key, found in content.items()}


def _read_table(path: Path, known: Collection[str]) -> Shown:
    (_, header), *lines = _read_lines(path)
    is_list = len(header) == 2 and header[1] not in known
    unknown = [] if is_list else [name for name in header[1:] if name not in known]
    if unknown:
        raise ConfigError(
            f"{path}: {unknown[0]!r} in its header is no label of this model. Expected a column for each label with 0 "
            "or 1 in it, or two columns: the file, and its labels"
        )
    shown: Shown = {}
    for number, (file, *cells) in lines:
        labels = _split(cells[0], known) if is_list else _ticked(f"{path}: line {number}", header[1:], cells)
        shown.setdefault(file, []).extend(labels)
    return shown


def _read_lines(path: Path) -> list[tuple[int, list[str]]]:
    """Return the cells of each line that is not empty, with its number; the header first."""
    text = read_text(path)
    first = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(DELIMITERS, key=first.count))
    try:
        rows = [[cell.strip() for cell in row] for row in reader]
    except csv.Error as error:
        raise ConfigError(f"{path}: line {reader.line_num} is no line of a table ({error})") from error
    lines = [(number, row) for number, row in enumerate(rows, start=1) if any(row)]
    width = len(lines[0][1]) if lines else 0
    if width < 2 or len(lines) < 2:
        raise ConfigError(f"{path}: expected a header such as `file,labels`, and lines such as `a.jpg,cat|dog`")
    for number, row in lines:
        if len(row) != width:
            raise ConfigError(f"{path}: line {number} has {len(row)} cells, and the header has {width}")
    return lines


def _split(cell: str, known: Collection[str]) -> list[str]:
    """Return the labels of a cell. A label may itself have a blank or a separator."""
    if cell in known:
        return [cell]
    parts = SEPARATORS.split(cell) if SEPARATORS.search(cell) else cell.split()
    return [part.strip() for part in parts if part.strip()]


def _ticked(where: str, columns: Sequence[str], cells: Sequence[str]) -> list[str]:
    for cell in cells:
        if cell not in TICKS:
            raise ConfigError(
                f"{where}: {cell!r} is neither 0 nor 1. The header names more than `file,labels`, so each of its "
                "columns is a label, with 0 or 1 below"
            )
    return [column for column, cell in zip(columns, cells, strict=True) if TICKS[cell]]
