"""One picture -> one row, always: where it is from, its answer or its error, and the model that gave it.

Every engine makes these rows, and a Parquet shard has them in the fixed columns of the model's task.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pyarrow

Answer = dict[str, Any]  # as the HTTP contract has it: a prediction, or {"code", "type", "message"}
Row = dict[str, Any]

SCHEMA_VERSION = 1
OK = 200
TASKS = {"classes": "classification", "detections": "detection", "embedding": "embedding"}  # by the key of an answer


class Origin(NamedTuple):
    """The model that answered. archive_sha256: of the `.mar`; None where a server answered."""

    model: str
    version: str | None
    archive_sha256: str | None


def has_failed(answer: Answer) -> bool:
    return "code" in answer


def make_row(name: str, answer: Answer, origin: Origin) -> Row:
    """Return the row of a picture: `status` 200 with the `answer`, or the error's code with its type and message."""
    failed = has_failed(answer)
    return {
        "path": name,
        "status": answer["code"] if failed else OK,
        "error": {"type": answer["type"], "message": answer["message"]} if failed else None,
        "answer": None if failed else answer,
        "model": origin.model,
        "version": origin.version,
        "archive_sha256": origin.archive_sha256,
    }


def read_answer(row: Row) -> Answer:
    """Return the answer or error of a row, as `make_row` was given it."""
    if row["error"] is not None:
        return {"code": row["status"], **row["error"]}
    answer: Answer = row["answer"]
    return answer


def task_of(answer: Answer) -> str | None:
    """Return the task of the model that gave an answer; None of an error."""
    return next((task for key, task in TASKS.items() if key in answer), None)


def new_schema(task: str) -> "pyarrow.Schema":
    """Return the columns of a task's Parquet files: path, status, error, the answer's own, the model's."""
    import pyarrow as pa

    def list_of(kind: "pa.DataType") -> "pa.DataType":
        return pa.list_(pa.field("element", kind))  # as it is called when a Parquet file is read

    text, numbers = pa.string(), list_of(pa.float64())
    found = [("class_id", pa.int32()), ("label", text), ("score", pa.float64())]
    box = [
        ("box", numbers),
        ("mask", pa.struct([("size", list_of(pa.int32())), ("counts", text)])),
        ("polygons", list_of(numbers)),
        ("keypoints", list_of(numbers)),
        ("corners", numbers),
    ]
    columns = {
        "classification": [("classes", list_of(pa.struct(found)))],
        "detection": [
            ("detections", list_of(pa.struct([*found, *box]))),
            ("image", pa.struct([("width", pa.int32()), ("height", pa.int32())])),
            ("box_format", text),
        ],
        "embedding": [("embedding", list_of(pa.float32()))],
    }
    first = [("path", text), ("status", pa.int32()), ("error", pa.struct([("type", text), ("message", text)]))]
    last = [("model", text), ("version", text), ("archive_sha256", text)]
    return pa.schema([*first, *columns[task], *last], metadata={"task": task, "schema_version": str(SCHEMA_VERSION)})


def to_table(rows: Sequence[Mapping[str, Any]], task: str) -> "pyarrow.Table":
    """Return rows in the columns of their task; what an answer does not have is null."""
    import pyarrow as pa

    return pa.Table.from_pylist([{**row, **(row["answer"] or {})} for row in rows], schema=new_schema(task))
