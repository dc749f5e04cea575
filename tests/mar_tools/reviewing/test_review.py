"""The pictures that a person should look at are found, drawn and listed."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from conftest import RunHere
from PIL import Image

from mar_tools.predicting.inputs import find_item, list_items
from mar_tools.predicting.rows import Origin, make_row, to_table
from mar_tools.reviewing.choosing import review
from mar_tools.reviewing.doubts import find_difference, find_doubt
from vision_serving.errors import ConfigError

COMMAND = "review_predictions.py"
ERROR = {"code": 400, "type": "ImageDecodeError", "message": "damaged </script><b>"}


def classes(**scores: float) -> dict[str, Any]:
    entries = sorted(scores.items(), key=lambda entry: -entry[1])
    return {"classes": [{"class_id": 0, "label": label, "score": score} for label, score in entries]}


def boxes(*found: tuple[str, float, float]) -> dict[str, Any]:
    """Boxes of a label and a score, each 10 wide, at this x."""
    entries = [
        {"class_id": 0, "label": label, "score": score, "box": [x, 0.0, x + 10, 10.0]} for label, score, x in found
    ]
    return {"detections": entries, "image": {"width": 40, "height": 30}}


@pytest.mark.parametrize(
    ("answer", "doubt"),
    [
        (classes(cat=0.55, dog=0.40, cow=0.05), (0.85, "cat leads dog by 0.15")),
        (classes(cat=0.98, dog=0.02), (0.04, "cat leads dog by 0.96")),
        (classes(cat=0.9, dog=0.8, cow=0.52), (0.96, "cow has 0.52")),  # independent scores
        (classes(cat=0.6), (0.8, "cat has 0.60")),
        (boxes(("car", 0.95, 0.0), ("bus", 0.45, 20.0)), (0.9, "bus has 0.45")),
        (boxes(), None),
        ({"embedding": [1.0, 0.0]}, None),
    ],
)
def test_how_sure_an_answer_is(answer: dict[str, Any], doubt: tuple[float, str] | None) -> None:
    found: Any = find_doubt(answer)
    assert found == (None if doubt is None else (pytest.approx(doubt[0]), doubt[1]))


@pytest.mark.parametrize(
    ("first", "second", "difference"),
    [
        (classes(cat=0.9, dog=0.1), classes(cat=0.6, dog=0.4), None),
        (classes(cat=0.9, dog=0.1), classes(dog=0.7, cat=0.3), (0.7, "cat / dog")),
        (classes(), classes(dog=0.7), (0.7, "nothing / dog")),
        (boxes(("car", 0.9, 0.0)), boxes(("car", 0.8, 2.0)), None),
        (boxes(("car", 0.9, 0.0)), boxes(("bus", 0.8, 0.0)), (0.9, "1 / 1 boxes without a partner, the surest car")),
        (boxes(("car", 0.9, 0.0)), boxes(), (0.9, "1 / 0 boxes without a partner, the surest car")),
        (
            boxes(("car", 0.9, 0.0), ("car", 0.6, 1.0)),
            boxes(("car", 0.8, 0.0)),
            (0.6, "1 / 0 boxes without a partner, the surest car"),
        ),
        ({"embedding": [1.0, 0.0]}, {"embedding": [2.0, 0.1]}, None),
        ({"embedding": [1.0, 0.0]}, {"embedding": [0.0, 3.0]}, (1.0, "cosine 0.000")),
        (classes(cat=0.9), boxes(), None),
    ],
)
def test_how_far_two_answers_differ(
    first: dict[str, Any], second: dict[str, Any], difference: tuple[float, str] | None
) -> None:
    found: Any = find_difference(first, second)
    assert found == (None if difference is None else (pytest.approx(difference[0]), difference[1]))


def write_lines(file: Path, answers: dict[str, dict[str, Any]]) -> Path:
    file.write_bytes(b"".join(orjson.dumps({"file": path, **answer}) + b"\n" for path, answer in answers.items()))
    return file


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("sure", "unsure", "gone", "other"):
        Image.fromarray(np.full((30, 40, 3), 99, np.uint8)).save(folder / f"{name}.png")
    (folder / "gone.png").unlink()
    return {name: str(folder / f"{name}.png") for name in ("sure", "unsure", "gone", "other", "broken")}


def test_parquet_and_json_lines_are_read_alike(pictures: dict[str, str], tmp_path: Path) -> None:
    import pyarrow.parquet

    answers = {pictures["sure"]: boxes(("car", 0.9, 0.0)), pictures["unsure"]: boxes(), pictures["broken"]: ERROR}
    lines = write_lines(tmp_path / "found.jsonl", answers)
    folder = tmp_path / "rows"
    folder.mkdir()
    rows = [make_row(path, answer, Origin("m", "1.0", None)) for path, answer in answers.items()]
    pyarrow.parquet.write_table(to_table(rows, "detection"), folder / "part-0.parquet")
    for result in (lines, folder, folder / "part-0.parquet"):
        found = review(result, lines, 5)
        assert (found.rows, found.empty, found.differing_count, found.alone) == (3, 1, 0, 0)
        assert found.errors == {(400, "ImageDecodeError"): 1}
        assert [doubtful.path for doubtful in found.unsure] == [pictures["sure"]]


def test_the_page_and_the_list(pictures: dict[str, str], tmp_path: Path, run_here: RunHere) -> None:
    first = write_lines(
        tmp_path / "first.jsonl",
        {
            pictures["sure"]: classes(cat=0.9, dog=0.1),
            pictures["unsure"]: classes(cat=0.5, dog=0.5),
            pictures["gone"]: classes(cat=0.6, dog=0.4),
            pictures["other"]: classes(cat=0.97, dog=0.03),
            pictures["broken"]: ERROR,
        },
    )
    second = write_lines(
        tmp_path / "second.jsonl",
        {pictures["sure"]: classes(cat=0.9, dog=0.1), pictures["other"]: classes(dog=0.8, cat=0.2)},
    )
    page, listed = tmp_path / "page.html", tmp_path / "list.csv"
    done = run_here(COMMAND, first, second, "--count", 2, "--output", page, "--list", listed)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"5 pictures, 1 without an answer, 1 answered differently\n3 to label: {listed}\n{page}\n"
    with listed.open(newline="") as stream:
        lines = [(row["path"], row["why"], row["what"]) for row in csv.DictReader(stream)]
    assert lines == [
        (pictures["other"], "differs", "cat / dog"),
        (pictures["unsure"], "unsure", "cat leads dog by 0.00"),
        (pictures["gone"], "unsure", "cat leads dog by 0.20"),
    ]
    text = page.read_text()
    assert text.count('<img src="data:image/jpeg') == 3  # two of the one that differs
    assert "cannot be shown: No such file or directory" in text
    assert "<script" not in text
    assert "damaged &lt;/script&gt;&lt;b&gt;" in text
    refused = run_here(COMMAND, first, "--output", page)
    assert (refused.returncode, "this file is there, and would be replaced" in refused.stderr) == (1, True)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.write_text(""), "no rows in it"),
        (lambda path: path.write_text("{}\n"), "line 1 is none of predict_images.py --format json-lines"),
        (lambda path: path.write_text('{"file": "a"}\n'), "line 1 is none of"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "line 1 is none of"),
        (lambda path: path.mkdir(), "no part-\\*.parquet in it"),
    ],
)
def test_what_is_no_result_is_refused(write: Any, message: str, tmp_path: Path) -> None:
    write(tmp_path / "result")
    with pytest.raises(ConfigError, match=message):
        review(tmp_path / "result", None, 3)


def test_a_picture_is_found_again_by_the_name_in_its_row(pictures: dict[str, str], tmp_path: Path) -> None:
    import tarfile

    import pyarrow as pa
    import pyarrow.parquet

    content = Path(pictures["sure"]).read_bytes()
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        archive.add(pictures["other"], "a/0.png")
        archive.add(pictures["sure"], "a/1.png")
    pyarrow.parquet.write_table(pa.table({"image": [b"x", content]}), tmp_path / "rows.parquet")
    for given in (pictures["sure"], str(tmp_path / "shard.tar"), str(tmp_path / "rows.parquet")):
        last = list(list_items([given]))[-1]
        assert find_item(last.name).read() == content
    with pytest.raises(OSError, match="No such file"):
        find_item(f"{tmp_path}/shard.tar/a/2.png")
