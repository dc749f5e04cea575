"""The names of the classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from vision_serving.errors import ConfigError, InvalidOptionError
from vision_serving.validation import MOST_BYTES, read_json

NAMED = 10  # labels that a message lists


def read_labels(path: Path) -> list[str]:
    """Read `labels.json`: the label of each class id. Raises ConfigError."""
    labels = read_json(path, most_bytes=MOST_BYTES)
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ConfigError(f"{path}: expected a list of strings")
    return labels


def find_class_ids(wanted: int | str, labels: Sequence[str], option: str) -> tuple[int, ...]:
    """Return the classes that an option names: all with that label, or the one with that id.

    Raises InvalidOptionError.
    """
    if wanted in labels:
        return tuple(class_id for class_id, label in enumerate(labels) if label == wanted)
    text = str(wanted)
    if len(text) < 10 and text.isdecimal() and int(text) < len(labels):
        return (int(text),)
    known = f"{', '.join(labels[:NAMED])}{', ...' if len(labels) > NAMED else ''}"
    raise InvalidOptionError(
        f"{option}: {str(wanted)[:60]!r} is neither a label of this model ({known}) nor a class id"
    )


def thresholds_by_class_id(class_thresholds: Mapping[int | str, float], labels: Sequence[str]) -> dict[int, float]:
    """Return the option `class_thresholds` with class ids for its names. Raises InvalidOptionError."""
    by_class_id: dict[int, float] = {}
    for name, threshold in class_thresholds.items():
        for class_id in find_class_ids(name, labels, "class_thresholds"):
            if class_id in by_class_id:
                raise InvalidOptionError(f"class_thresholds: the class {labels[class_id]!r} is there twice")
            by_class_id[class_id] = threshold
    return by_class_id
