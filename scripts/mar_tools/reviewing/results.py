"""A result of predict_images.py, row by row: a folder of Parquet shards, a Parquet file, or JSON lines."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from mar_tools.predicting.rows import OK, TASKS, Answer, Row, has_failed
from vision_serving.errors import ConfigError

PARQUET = ".parquet"
ROWS_AT_A_TIME = 1024


def read_result(result: Path) -> Iterator[Row]:
    """Yield `path`, `status`, `error` and `answer` of each picture. Raises ConfigError for what is no result."""
    if result.is_dir():
        shards = sorted(result.glob(f"part-*{PARQUET}"))
        if not shards:
            raise ConfigError(f"{result}: no part-*.parquet in it; expected the --output of predict_images.py")
        for shard in shards:
            yield from _read_parquet(shard)
    elif result.suffix.lower() == PARQUET:
        yield from _read_parquet(result)
    else:
        yield from _read_lines(result)


def _read_parquet(file: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as content:
            for batch in content.iter_batches(ROWS_AT_A_TIME):
                yield from map(_of_columns, batch.to_pylist())
    except (pa.ArrowInvalid, KeyError) as error:
        raise ConfigError(f"{file}: expected rows of predict_images.py --format parquet: {error}") from error
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: no such file or folder") from error


def _of_columns(columns: dict[str, Any]) -> Row:
    row = {key: columns[key] for key in ("path", "status", "error")}
    answer = {key: value for key, value in columns.items() if key not in row and value is not None}
    return {**row, "answer": answer if columns["status"] == OK else None}


def _read_lines(file: Path) -> Iterator[Row]:
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield _of_line(orjson.loads(line))
                except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
                    raise ConfigError(
                        f"{file}: line {number} is none of predict_images.py --format json-lines; expected that, or a "
                        "folder of --format parquet"
                    ) from error
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error


def _of_line(answer: Answer) -> Row:
    path = answer.pop("file")
    if has_failed(answer):
        error = {"type": answer["type"], "message": answer["message"]}
        return {"path": path, "status": answer["code"], "error": error, "answer": None}
    if not TASKS.keys() & answer.keys():
        raise KeyError("an answer")
    return {"path": path, "status": OK, "error": None, "answer": answer}
