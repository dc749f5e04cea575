"""The names of the classes from a file, in the forms that trainings leave them."""

import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vision_serving.errors import ConfigError
from vision_serving.validation import MOST_BYTES, load_yaml, read_json, read_text, read_yaml

TABLES = ("names", "id2label")  # of Ultralytics' data.yaml, of transformers' config.json
COUNT = "nc"  # of classes, in data.yaml
EXPECTED = (
    "expected a list of labels, an object from '0' to 'C-1' or to such numbers, `names` of a data.yaml, `id2label` of "
    "a config.json, or a text file with a label a line"
)
# What changes how the text around it looks: separators of lines and paragraphs, and marks of the writing direction.
DISTURBING = {"\u2028", "\u2029", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
SHOWN = 60


def read_labels_file(path: Path) -> list[str]:
    """Return the label of each class id. Raises ConfigError for another form, and for control characters."""
    readers: dict[str, Callable[[Path], Any]] = {".json": _read_json, ".yaml": read_yaml, ".yml": read_yaml}
    content = readers.get(path.suffix.lower(), _read_text)(path)
    try:
        labels = _list_labels(content)
    except ValueError as error:
        raise ConfigError(f"{path}: {str(error) or EXPECTED}") from error
    check_labels(labels, str(path))
    return labels


def check_labels(labels: Sequence[str], where: str) -> None:
    """Raises ConfigError for a label with a control character: it would reach pictures, terminals and logs."""
    for class_id, label in enumerate(labels):
        for place, character in enumerate(label):
            if unicodedata.category(character) in ("Cc", "Cs") or character in DISTURBING:
                raise ConfigError(
                    f"{where}: the label of class {class_id} ({label[:SHOWN]!r}) has the control character "
                    f"U+{ord(character):04X} at place {place}; take it out"
                )


def _read_json(path: Path) -> Any:
    return read_json(path, most_bytes=MOST_BYTES)


def _read_text(path: Path) -> Any:
    """Return the lines. A text that begins as a list or table of Python or JSON is read as one."""
    text = read_text(path, MOST_BYTES)
    if text.lstrip()[:1] in ("[", "{"):
        try:
            return load_yaml(text.encode())
        except ValueError as error:
            raise ConfigError(f"{path}: begins as a list or table and is none ({error})") from error
    lines = [line.strip(" \t\r") for line in text.rstrip().split("\n")]
    if "" in lines and lines != [""]:
        raise ConfigError(f"{path}: line {lines.index('') + 1} is empty; each line is the label of a class")
    return [line for line in lines if line]


def _list_labels(content: Any) -> list[str]:
    """Raises ValueError for another form, with the reason where there is a better one than `EXPECTED`."""
    if isinstance(content, dict):
        table = next((name for name in TABLES if name in content), None)
        count = content.get(COUNT)
        labels = _list_labels(content[table]) if table else _list_table(content)
        if table and isinstance(count, int) and count != len(labels):
            raise ValueError(f"`{COUNT}` says {count} classes, and `{table}` has {len(labels)}")
        return labels
    if not isinstance(content, list) or not content:
        raise ValueError
    for class_id, label in enumerate(content):
        if not isinstance(label, str):  # YAML reads `no` as False, and 7 as a number
            raise ValueError(f"{EXPECTED}; class {class_id} is {label!r}, which is no text: quote it")
    return content


def _list_table(table: dict[Any, Any]) -> list[str]:
    """Return the labels of {"0": "cat"}, {0: "cat"}, {"0": ["n02123045", "cat"]} and {"cat": 0}."""
    numbers = list(table.values())
    if all(isinstance(key, str) and type(number) is int for key, number in table.items()):
        table = {number: label for label, number in table.items()}
        if len(table) < len(numbers):
            raise ValueError("two labels have the same number")
    by_number = {str(key): value for key, value in table.items()}
    if set(by_number) != {str(index) for index in range(len(table))}:
        given = sorted(by_number, key=lambda key: (not key.isdecimal(), len(key), key))
        gap = next((str(index) for index in range(len(table)) if str(index) not in by_number), "")
        raise ValueError(f"{EXPECTED}; it begins with {given[:3]}, and {gap!r} is missing")
    entries = [by_number[str(index)] for index in range(len(table))]
    return _list_labels([entry[-1] if isinstance(entry, list) and entry else entry for entry in entries])
