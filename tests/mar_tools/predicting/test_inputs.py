import io
import os
import sys
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mar_tools.images import find_images
from mar_tools.predicting.inputs import ROWS_AT_A_TIME, list_items
from vision_serving.errors import ConfigError

CONTENTS = {f"{number}.jpg": f"picture {number}".encode() for number in range(3)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, content in CONTENTS.items():
        (folder / name).write_bytes(content)
    return folder


def read_all(*inputs: object, column: str | None = None) -> dict[str, bytes]:
    return {item.name: item.read() for item in list_items([str(given) for given in inputs], column)}


def test_files_folders_and_globs_are_read(photos: Path) -> None:
    expected = {f"{photos}/{name}": content for name, content in CONTENTS.items()}
    assert read_all(photos) == read_all(f"{photos}/*.jpg") == read_all(*sorted(photos.iterdir())) == expected


def test_a_folder_is_listed_in_the_order_of_sorted_paths_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b/x.png", "b.png", "a/c/y.JPG", "a/z.webp", "a-b/q.png", ".hidden/x.png", "a/.h.png", "a/notes.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [item.name for item in list_items([str(tmp_path)])] == list(map(str, find_images(tmp_path)))


def test_a_list_names_paths_from_its_own_folder_and_addresses(photos: Path) -> None:
    listed = photos / "listed.txt"
    listed.write_text(f"1.jpg\n\n{photos}/0.jpg\nfile://{photos}/2.jpg\n")
    assert list(read_all(listed).values()) == [CONTENTS["1.jpg"], CONTENTS["0.jpg"], CONTENTS["2.jpg"]]


def test_a_name_that_is_no_text_is_read(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
    assert read_all(tmp_path) == {f"{tmp_path}/caf\\xe9.png": b"x"}


def test_the_pictures_of_a_tar_file_are_read_in_place(photos: Path, tmp_path: Path) -> None:
    shard = tmp_path / "shard-000.tar"
    with tarfile.open(shard, "w") as tar:
        tar.add(photos, "data")
        label = tarfile.TarInfo("data/0.cls")
        label.size = 1
        tar.addfile(label, io.BytesIO(b"7"))
    assert read_all(shard) == {f"{shard}/data/{name}": content for name, content in CONTENTS.items()}


@pytest.mark.parametrize("struct", [False, True], ids=["bytes", "as Hugging Face has them"])
def test_the_rows_of_a_parquet_file_are_read(tmp_path: Path, struct: bool) -> None:
    contents = [f"picture {number}".encode() for number in range(2 * ROWS_AT_A_TIME + 10)]
    values = [{"bytes": content, "path": None} for content in contents] if struct else contents
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"image": values, "label": [1] * len(contents)}), file, row_group_size=100)
    assert read_all(file) == {f"{file}#{number}": content for number, content in enumerate(contents)}


def test_a_parquet_column_of_paths_is_followed(photos: Path) -> None:
    file = photos / "rows.parquet"
    pq.write_table(pa.table({"where": ["2.jpg", str(photos / "0.jpg")], "label": ["a", "b"]}), file)
    assert list(read_all(file, column="where").values()) == [CONTENTS["2.jpg"], CONTENTS["0.jpg"]]
    with pytest.raises(ConfigError, match=r"Give --column with one of \['where', 'label'\]"):
        read_all(file)
    with pytest.raises(ConfigError, match=r"no column 'image'; it has \['where', 'label'\]"):
        read_all(file, column="image")


@pytest.fixture
def bucket() -> Iterator[str]:
    memory = fsspec.filesystem("memory")
    for name, content in CONTENTS.items():
        memory.pipe_file(f"/bucket/photos/{name}", content)
    yield "memory://bucket/photos"
    memory.rm("/bucket", recursive=True)


def test_an_object_store_is_read_by_its_address(bucket: str, photos: Path) -> None:
    stored = {f"{bucket.replace('//', '///')}/{name}": content for name, content in CONTENTS.items()}
    assert read_all(bucket) == read_all(f"{bucket}/*.jpg") == stored
    assert read_all(f"{bucket}/1.jpg") == {f"{bucket}/1.jpg": CONTENTS["1.jpg"]}
    assert list(read_all(f"file://{photos}").values()) == list(CONTENTS.values())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.jpg", None, "no such file or folder"),
        ("*.nothing", None, "no images in it"),
        ("empty.txt", b"", "no images in it"),
        ("x.tar.gz", b"x", "without compression"),
        ("x.tar", b"x" * 600, "expected a whole tar file"),
        ("x.parquet", b"x", "expected a Parquet file"),
        ("nowhere://bucket", None, "cannot be listed"),
    ],
)
def test_an_input_that_holds_no_pictures_is_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        list(list_items([name if "://" in name else str(tmp_path / name)]))


def test_what_goes_missing_is_an_error_of_its_own_picture(photos: Path) -> None:
    items = list(list_items([str(photos), f"file://{photos}"]))
    for file in photos.iterdir():
        file.unlink()
    for item in items:
        with pytest.raises(FileNotFoundError):
            item.read()


def test_the_first_of_many_is_there_at_once(tmp_path: Path) -> None:
    """Whoever listed all first would open the later folders."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").touch()
    opened: list[str] = []
    sys.addaudithook(lambda event, values: opened.append(str(values[0])) if event == "os.scandir" else None)
    list(islice(list_items([str(tmp_path)]), 1))
    assert (str(tmp_path / "a") in opened, str(tmp_path / "b") in opened) == (True, False)
