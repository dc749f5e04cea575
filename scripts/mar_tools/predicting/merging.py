"""The shards of a run -> one file, in the order of the pictures, which appears whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from mar_tools.predicting.formats import NewWriter
from mar_tools.predicting.rows import Answer, read_answer
from mar_tools.predicting.shards import ResultFolder, sync_folder
from vision_serving.errors import ConfigError


def merge_shards(
    result: ResultFolder, output: Path, new_writer: NewWriter, count_rows: Callable[[Answer], int], whole: bool
) -> int:
    """Write all rows to a new file. Return how many rows, lines or boxes are in it. Raises ConfigError if it is there.

    whole: whether the model, its version and its digest stand beside each answer.
    """
    rows = 0

    def write_all(stream: IO[str]) -> None:
        nonlocal rows
        with new_writer(stream) as write:
            for row in result.read_rows():
                answer = read_answer(row)
                rows += count_rows(answer)
                beside = {key: row[key] for key in ("model", "version", "archive_sha256")} if whole else {}
                write(row["path"], {**answer, **beside})

    write_new(output, write_all)
    return rows


def write_new(output: Path, write: Callable[[IO[str]], None]) -> None:
    """Write a file under another name, and give it its own when it is on the disk. It replaces nothing."""
    temporary = output.with_name(f".{output.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(temporary, output)  # unlike a renaming, it fails where another run has made the file meanwhile
        except FileExistsError as error:
            raise ConfigError(f"{output}: this file is there, and would be replaced; give another --output") from error
        sync_folder(output.parent)
    finally:
        temporary.unlink(missing_ok=True)
