import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mar_tools.predicting import shards
from mar_tools.predicting.chunks import ChunkSource, write_rows
from mar_tools.predicting.inputs import Item
from mar_tools.predicting.rows import Answer, Origin, make_row, new_schema, read_answer, task_of
from mar_tools.predicting.shards import KEPT_APART, LINES, PARQUET, KnownPaths, ResultFolder, open_folder
from vision_serving.errors import ConfigError
from vision_serving.predictions import (
    Classification,
    ClassScore,
    ConvertedOrientedDetections,
    Detection,
    Detections,
    Embedding,
    ImageSize,
    KeypointDetection,
    MaskDetection,
    OrientedDetection,
    PolygonDetection,
    RunLengths,
)

ORIGIN = Origin("cats", "1.0", "ab12")
FAILED = {"code": 400, "type": "ImageDecodeError", "message": "not an image"}
BOX = (1, "cat", 0.9, (1.5, 2.0, 3.0, 4.0))
SIZE = ImageSize(8, 9)
PREDICTIONS = [
    Classification((ClassScore(2, "cat", 0.75), ClassScore(0, "dog", 0.25))),
    Embedding((0.5, -1.25)),
    Detections((Detection(*BOX),), SIZE),
    Detections((), SIZE),
    Detections((MaskDetection(*BOX, RunLengths((9, 8), "0a1")), MaskDetection(*BOX, None)), SIZE),
    Detections((PolygonDetection(*BOX, ((0.0, 1.0, 2.0, 3.0, 4.0, 5.0), (6.0, 7.0))),), SIZE),
    Detections((KeypointDetection(*BOX, ((1.0, 2.0, 0.5), (3.0, 4.0, 0.25))),), SIZE),
    ConvertedOrientedDetections((OrientedDetection(*BOX, (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)),), SIZE, "xywh"),
]  # fmt: skip


def without_nulls(value: Any) -> Any:
    """A column is null where an answer does not have it, as JSON has a null or nothing."""
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("prediction", PREDICTIONS, ids=lambda prediction: type(prediction).__name__)
def test_a_parquet_shard_has_all_that_an_answer_has(tmp_path: Path, prediction: Any) -> None:
    answer = orjson.loads(orjson.dumps(prediction))
    task, path = task_of(answer), tmp_path / ".part-0.parquet.tmp-1"
    written = write_rows(path, [make_row("a.jpg", answer, ORIGIN), make_row("b.jpg", FAILED, ORIGIN)], task)
    assert (written.rows, written.failed, written.failure) == (2, 1, "b.jpg: not an image")
    assert task is not None
    assert pq.read_schema(path).equals(new_schema(task), check_metadata=True)
    good, failed = pq.read_table(path).to_pylist()
    assert without_nulls(good) == without_nulls({"path": "a.jpg", "status": 200, **answer, **ORIGIN._asdict()})
    assert without_nulls(failed) == {
        "path": "b.jpg", "status": 400, "error": {"type": "ImageDecodeError", "message": "not an image"},
        **ORIGIN._asdict(),
    }  # fmt: skip


def test_the_columns_are_those_of_every_prediction() -> None:
    """A field that a prediction gets later needs a column, or it would be lost without a word."""
    entry = new_schema("detection").field("detections").type.value_type
    kinds = (MaskDetection, PolygonDetection, KeypointDetection, OrientedDetection)
    assert {field.name for kind in kinds for field in fields(kind)} == {entry.field(i).name for i in range(len(entry))}
    assert {field.name for field in fields(ConvertedOrientedDetections)} < set(new_schema("detection").names)
    assert {field.name for field in fields(Classification)} < set(new_schema("classification").names)


@pytest.mark.parametrize("answer", [FAILED, orjson.loads(orjson.dumps(PREDICTIONS[0]))])
def test_a_row_gives_its_answer_back(answer: dict[str, Any]) -> None:
    assert read_answer(make_row("a.jpg", answer, ORIGIN)) == answer


def test_known_paths_are_found_among_many() -> None:
    known = KnownPaths()
    names = [f"folder/{number}.jpg" for number in range(KEPT_APART + 1000)]
    assert all(map(known.add, names))
    assert not any(map(known.add, names))
    assert all(name in known for name in names)
    assert "folder/x.jpg" not in known


def test_known_names_are_sorted_more_seldom_the_more_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    sorts: list[int] = []
    sort = np.sort

    def count_and_sort(digests: Any) -> Any:
        sorts.append(len(digests))
        return sort(digests)

    monkeypatch.setattr(shards, "KEPT_APART", 16)
    monkeypatch.setattr(np, "sort", count_and_sort)
    names = [f"{number}.jpg" for number in range(5000)]
    known = KnownPaths()
    assert all(known.add(name) for name in names)
    assert not any(known.add(name) for name in names)
    assert len(sorts) < 100, "each 16 names would be 312 times"


def items_of(*names: str) -> list[Item]:
    return [Item(name, ("file", name)) for name in names]


def write_chunk(result: ResultFolder, position: int, *names: str) -> None:
    temporary = result.temporary(position)
    answer: Answer = {"classes": []}
    written = write_rows(temporary, [make_row(name, answer, ORIGIN) for name in names], "classification")
    result.commit(temporary, position, written.rows, written.failed)


@pytest.mark.parametrize("form", [PARQUET, LINES])
def test_a_run_goes_on_with_what_has_no_row_in_the_order_of_the_pictures(tmp_path: Path, form: str) -> None:
    folder, names = tmp_path / "rows", ["a", "b", "c", "d", "e", "f"]
    with open_folder(folder, form, {"model": "cats"}, resume=False) as result:
        write_chunk(result, 0, "a")
        write_chunk(result, 3, "d", "e")
    with open_folder(folder, form, {"model": "cats"}, resume=True) as result:
        assert (result.rows, result.failed) == (3, 0)
        source = ChunkSource(iter(items_of(*names, "a", "f")), result)
        while chunk := source.take(10):
            write_chunk(result, chunk.position, *(item.name for item in chunk.items))
        assert result.rows == 6
        if form == LINES:
            assert [row["path"] for row in result.read_rows()] == names
    if form == PARQUET:
        assert sorted(pq.read_table(folder)["path"].to_pylist()) == names


@pytest.mark.parametrize(
    ("resume", "changes", "message"),
    [
        (False, {}, "holds results, which nothing replaces; give --resume"),
        (True, {"archive_sha256": "cd"}, "it was begun with archive_sha256 'ab', and this is 'cd'"),
        (True, {"options": {"top_k": "1"}}, r"it was begun with options \{\}, and this is \{'top_k': '1'\}"),
    ],
)
def test_nothing_else_goes_on_with_a_result(
    tmp_path: Path, resume: bool, changes: dict[str, Any], message: str
) -> None:
    run: dict[str, Any] = {"archive_sha256": "ab", "options": {}}
    with open_folder(tmp_path / "rows", LINES, run, resume=False) as result:
        write_chunk(result, 0, "a")
    with pytest.raises(ConfigError, match=message), open_folder(tmp_path / "rows", LINES, {**run, **changes}, resume):
        pass


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    for resume in (False, True):
        with pytest.raises(ConfigError, match=r"holds no results of predict_images\.py"):
            open_folder(tmp_path, LINES, {}, resume).__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_two_processes_cannot_write_one_result(tmp_path: Path) -> None:
    with open_folder(tmp_path / "rows", LINES, {}, resume=False) as result:
        write_chunk(result, 0, "a")
        with pytest.raises(ConfigError, match="another process writes there"):
            open_folder(tmp_path / "rows", LINES, {}, resume=True).__enter__()


def test_a_run_without_a_row_leaves_nothing(tmp_path: Path) -> None:
    with suppress(OSError), open_folder(tmp_path / "rows", LINES, {}, resume=False) as result:
        result.temporary(0).write_bytes(b"half of a sh")
        raise OSError
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    with open_folder(tmp_path / "rows", LINES, {}, resume=False) as result:
        write_chunk(result, 0, "a")
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    left, written = (tmp_path / "rows" / f".part-1.jsonl.tmp-{pid}" for pid in (int(dead.stdout), os.getppid()))
    for file in (left, written):
        file.touch()
    with open_folder(tmp_path / "rows", LINES, {}, resume=True):
        assert (left.exists(), written.exists()) == (False, True)


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    with open_folder(tmp_path / "rows", LINES, {}, resume=False) as result:
        write_chunk(result, 0, "b")
        write_chunk(result, 0, "a")
        assert [part.name for part in result.parts()] == ["part-000000000000-2.jsonl", "part-000000000000.jsonl"]
        assert sorted(row["path"] for row in result.read_rows()) == ["a", "b"]


def test_an_embedding_is_of_32_bits() -> None:
    assert new_schema("embedding").field("embedding").type.value_type == pa.float32()
