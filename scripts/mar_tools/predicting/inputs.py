"""What is predicted: pictures in files, folders, lists, globs, Parquet, tar shards and object stores, one by one.

An item has a name, which its row keeps, and a place to read it from, which another process can be told. Nothing is
listed before it is asked for, so the first of 200,000 pictures is predicted at once.
"""

import errno
import glob
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from mar_tools.images import image_suffixes, read_image, show_name
from vision_serving.errors import ConfigError

TAR, LIST, PARQUET = ".tar", ".txt", ".parquet"
BYTES_COLUMNS, PATH_COLUMNS = ("image", "bytes", "jpg", "png", "content"), ("path", "file", "url")
COMPRESSED = (".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst")
ROWS_AT_A_TIME = 256  # of a Parquet file, whose pictures are held in memory together


class Item(NamedTuple):
    """A picture to predict. name: as rows show it. place: a kind of READERS, then what that kind needs to find it."""

    name: str
    place: tuple[Any, ...]

    def read(self) -> bytes:
        """Return the encoded picture. Raises OSError."""
        kind, *where = self.place
        return READERS[kind](*where)


def list_items(inputs: Sequence[str], column: str | None = None) -> Iterator[Item]:
    """Yield the pictures of all inputs in order, those of a folder sorted by their paths.

    column: of Parquet files, with the bytes or the paths of pictures. Raises ConfigError for an input without pictures.
    """
    for given in inputs:
        found = False
        for item in _list_input(given, column):
            found = True
            yield item
        if not found:
            raise ConfigError(f"{given}: no images in it")


def _list_input(given: str, column: str | None) -> Iterator[Item]:
    path = Path(given)
    if "://" in given:
        yield from _list_address(given)
    elif path.is_dir():
        yield from _list_folder(given)
    elif path.exists():
        yield from _list_file(given, column)
    elif glob.has_magic(given):
        for match in sorted(glob.iglob(given, recursive=True)):
            yield from _list_input(match, column)
    else:
        raise ConfigError(f"{given}: no such file or folder")


def _list_file(given: str, column: str | None) -> Iterator[Item]:
    if given.lower().endswith(COMPRESSED):
        raise ConfigError(f"{given}: expected a tar file without compression, whose pictures can be read in any order")
    listed: dict[str, Callable[[], Iterator[Item]]] = {
        TAR: lambda: _list_tar(given),
        LIST: lambda: _list_lines(given, column),
        PARQUET: lambda: _list_parquet(given, column),
    }
    yield from listed.get(Path(given).suffix.lower(), lambda: iter([file_item(given)]))()


def file_item(path: str) -> Item:
    """Return the item of a file, which need not be there."""
    if path.isascii():
        return Item(path, ("file", path))
    return Item(show_name(path), ("file", os.fsencode(path).decode("latin-1")))  # a name need not be UTF-8


def find_item(name: str) -> Item:
    """Return the item that a row names: a file, an address, a member of a tar file, or a row of a Parquet file.

    Raises OSError, or ConfigError, where the tar or Parquet file is not what it was.
    """
    if "://" in name or Path(name).is_file():
        return _named_item(name, Path())
    archive, has_member, _ = name.partition(f"{TAR}/")
    if has_member and Path(archive + TAR).is_file():
        return _find_named(_list_tar(archive + TAR), name)
    file, _, row = name.rpartition("#")
    if row.isdecimal() and Path(file).is_file():
        return _find_named(_list_parquet(file, None), name)
    return file_item(name)


def _find_named(items: Iterator[Item], name: str) -> Item:
    found = next((item for item in items if item.name == name), None)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return found


def _list_folder(folder: str) -> Iterator[Item]:
    """Yield the images of a folder and its subfolders, hidden ones left out, folder by folder."""
    suffixes = tuple(image_suffixes())
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _list_folder(entry.path)
        elif entry.name.lower().endswith(suffixes):
            yield file_item(entry.path)


def _list_lines(given: str, column: str | None) -> Iterator[Item]:
    """Yield what a text file names, a path or an address a line; relative paths begin at the folder of the list."""
    with open(given, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            if line.strip():
                yield _named_item(line.rstrip("\r\n"), Path(given).parent)


def _named_item(name: str, folder: Path) -> Item:
    """Return the item of a path or an address in a list. That it is not there is told by its row."""
    return Item(name, ("address", name)) if "://" in name else file_item(str(folder / name))


def _list_tar(given: str) -> Iterator[Item]:
    """Yield the images of a tar file: `shard.tar/000123.jpg`."""
    suffixes = image_suffixes()
    try:
        with tarfile.open(given, "r:") as members:
            for member in members:
                members.members = []  # type: ignore[attr-defined]  # which would keep all of them
                if member.isreg() and os.path.splitext(member.name)[1].lower() in suffixes:
                    yield Item(show_name(f"{given}/{member.name}"), ("part", given, member.offset_data, member.size))
    except tarfile.TarError as error:
        raise ConfigError(f"{given}: expected a whole tar file: {error}") from error


def _list_parquet(given: str, column: str | None) -> Iterator[Item]:
    """Yield the rows of a Parquet file: `file.parquet#17` for bytes, or the path that a row has."""
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(given)
    except pyarrow.ArrowInvalid as error:
        raise ConfigError(f"{given}: expected a Parquet file: {error}") from error
    with file:
        name, holds_bytes = _choose_column(given, file.schema_arrow, column)
        if holds_bytes:
            yield from (
                Item(show_name(f"{given}#{row}"), ("row", given, name, row)) for row in range(file.metadata.num_rows)
            )
            return
        for batch in file.iter_batches(columns=[name]):
            for path in batch.column(0).to_pylist():
                yield _named_item(path or "", Path(given).parent)


def _choose_column(given: str, schema: Any, column: str | None) -> tuple[str, bool]:
    """Return the column of pictures, and whether it holds their bytes: binary, or Hugging Face's struct of `bytes`."""
    from pyarrow import types

    def holds_bytes(field: Any) -> bool:
        if types.is_struct(field.type):
            return bool(field.type.get_field_index("bytes") >= 0)
        return bool(types.is_binary(field.type) or types.is_large_binary(field.type))

    kinds = {field.name: holds_bytes(field) for field in schema}
    if column is not None and column not in kinds:
        raise ConfigError(f"{given}: no column {column!r}; it has {list(kinds)}")
    of_bytes = [name for name, binary in kinds.items() if binary]
    usual = [name for name in (*BYTES_COLUMNS, *PATH_COLUMNS) if name in kinds]
    chosen = [column] if column else of_bytes if len(of_bytes) == 1 else usual
    if not chosen:
        raise ConfigError(f"{given}: which column has the pictures? Give --column with one of {list(kinds)}")
    return str(chosen[0]), kinds[str(chosen[0])]


def _list_address(given: str) -> Iterator[Item]:
    """Yield an object, or all images below an address, sorted: whatever fsspec reads, such as s3:// and gs://."""
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(given)
        if system.isfile(path):
            yield Item(given, ("address", given))
            return
        for name in sorted(system.glob(path) if glob.has_magic(path) else system.find(path)):
            if os.path.splitext(name)[1].lower() in image_suffixes():
                address = system.unstrip_protocol(name)
                yield Item(address, ("address", address))
    except (ImportError, ValueError, OSError) as error:  # of a protocol that is unknown, or needs a package
        raise ConfigError(f"{given}: cannot be listed: {error}") from error


def _read_file(name: str) -> bytes:
    return read_image(name.encode("latin-1"))


def _read_part(file: str, offset: int, size: int) -> bytes:
    with open(file, "rb") as content:
        content.seek(offset)
        return content.read(size)


def _read_row(file: str, column: str, row: int) -> bytes:
    value = _read_rows(file, column, row // ROWS_AT_A_TIME)[row % ROWS_AT_A_TIME]
    found = value.get("bytes") if isinstance(value, dict) else value
    if found is None:
        raise OSError(f"row {row} of {file} has no picture in {column!r}")
    return bytes(found)


@lru_cache(maxsize=4)
def _read_rows(file: str, column: str, block: int) -> list[Any]:
    """Return a block of neighbours: rows are asked for in order, so each block is read once or twice."""
    import pyarrow.parquet

    wanted, first = block * ROWS_AT_A_TIME, 0
    rows: list[Any] = []
    with pyarrow.parquet.ParquetFile(file, memory_map=True) as content:
        for group in range(content.num_row_groups):
            count = content.metadata.row_group(group).num_rows
            if first < wanted + ROWS_AT_A_TIME and first + count > wanted:
                table = content.read_row_group(group, columns=[column])
                rows += table.slice(max(0, wanted - first), wanted + ROWS_AT_A_TIME - max(first, wanted))[0].to_pylist()
            first += count
    return rows


def _read_address(address: str) -> bytes:
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(address)
        return bytes(system.cat_file(path))  # one request; to open it asks for its size first
    except OSError:
        raise
    except Exception as error:  # the stores' own errors have no common kind; the row tells them
        raise OSError(f"{type(error).__name__}: {error}") from error


READERS: dict[str, Callable[..., bytes]] = {
    "file": _read_file,
    "part": _read_part,
    "row": _read_row,
    "address": _read_address,
}
