"""What a file holds that an earlier run has finished: where it has every picture, `--resume` has nothing left to do."""

import csv
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import orjson

from mar_tools.images import show_name
from mar_tools.predicting.coco_results import images_file_of
from mar_tools.predicting.formats import COCO, CSV_COLUMNS
from mar_tools.predicting.inputs import Item
from mar_tools.predicting.rows import has_failed
from mar_tools.predicting.shards import KnownPaths
from vision_serving.errors import ConfigError
from vision_serving.validation import read_json

Outcomes = Iterator[tuple[str, bool]]  # of each picture its name, and whether it failed; once or more


def count_finished(output: Path, form: str, items: Iterable[Item]) -> int:
    """Return how many pictures of a finished file failed, of which it has all `items`.

    Raises ConfigError for a file of something else, and for one that lacks a picture.
    """
    known, failed = KnownPaths(), 0
    try:
        for name, is_failure in READERS.get(form, _read_lines)(output):
            failed += known.add(name) and is_failure
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise ConfigError(f"{output}: this file is there, and is no finished {form} file; move it away") from error
    names = [show_name(item.name) for item in items]
    missing = [name for name in names if name not in known]
    if missing:
        raise ConfigError(
            f"{output}: an earlier run finished it without {len(missing)} of these {len(names)} pictures, the first "
            f"{missing[0]}; give another --output for them"
        )
    return failed


def _read_csv(output: Path) -> Outcomes:
    with output.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if tuple(row) != CSV_COLUMNS:
                raise ValueError(f"expected the columns {CSV_COLUMNS}")
            yield row["file"], bool(row["error"])


def _read_lines(output: Path) -> Outcomes:
    with output.open("rb") as lines:
        for answer in map(orjson.loads, lines):
            yield answer["file"], has_failed(answer)


def _read_coco(output: Path) -> Outcomes:
    """Read the list of images beside the results, which do not name a picture without boxes."""
    for image in read_json(images_file_of(output))["images"]:
        yield image["file_name"], False


READERS: dict[str, Callable[[Path], Outcomes]] = {"csv": _read_csv, COCO: _read_coco}
