"""Archives are fetched from a real HTTP server, and reach the store when a trusted key has signed all of them."""

import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import RunHere

from mar_tools.archives import fetching
from mar_tools.archives.archive import open_archive
from mar_tools.archives.signing import read_private_key, sign_archive, write_key_pair

SECRET, PASSWORD = "X-Amz-Signature=0123456789abcdef", "of-the-bucket"


class Quiet(SimpleHTTPRequestHandler):
    """most: bytes of a file, after which it breaks off."""

    most: int | None = None

    def copyfile(self, source: Any, outputfile: Any) -> None:
        outputfile.write(source.read(self.most))
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def bucket(archive: Path, tmp_path: Path) -> Path:
    """A folder with two archives, each signed by the key of `keys/ours.key`."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    write_key_pair(tmp_path / "keys" / "ours.key", None)
    write_key_pair(tmp_path / "keys" / "other.key", None)
    for name in ("first.mar", "second.mar"):
        sign(Path(shutil.copy(archive, folder / name)), tmp_path / "keys" / "ours.key")
    return folder


def sign(archive: Path, key: Path) -> None:
    sign_archive(open_archive(archive), read_private_key(key, None))


@pytest.fixture
def url(bucket: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=bucket)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def listed(url: str, tmp_path: Path) -> Path:
    """A list of presigned addresses."""
    names = ("first.mar", "first.mar.sig", "second.mar", "second.mar.sig")
    path = tmp_path / "addresses.txt"
    path.write_text("# of the bucket\n" + "".join(f"{url}/{name}?{SECRET}\n" for name in names))
    return path


def fetch(run_here: RunHere, folder: Path, *given: object) -> tuple[int, str, list[str]]:
    """Return exit status, what was said, and the files of the store."""
    store = folder / "store"
    command = ("fetch_archives.py", "--into", store, *given, "--public-key", folder / "keys" / "ours.pub")
    finished = run_here(*command)
    files = sorted(path.name for path in store.iterdir()) if store.is_dir() else []
    for secret in (SECRET, PASSWORD):
        assert secret not in finished.stdout + finished.stderr
    return finished.returncode, finished.stdout + finished.stderr, files


FILES = ["first.mar", "first.mar.sig", "second.mar", "second.mar.sig"]


def test_what_a_list_names_reaches_the_store(run_here: RunHere, bucket: Path, listed: Path, tmp_path: Path) -> None:
    status, said, files = fetch(run_here, tmp_path, "--list", listed)
    assert (status, files) == (0, FILES), said
    assert said.count("signed by sha256:") == 2
    assert all((tmp_path / "store" / name).read_bytes() == (bucket / name).read_bytes() for name in FILES)
    assert (tmp_path / "store" / "first.mar").stat().st_mode & 0o777 == 0o644


def test_a_folder_and_files_are_sources_too(run_here: RunHere, bucket: Path, tmp_path: Path) -> None:
    (bucket / "README").write_text("no archive")
    assert fetch(run_here, tmp_path, bucket)[::2] == (0, FILES)
    shutil.rmtree(tmp_path / "store")
    assert fetch(run_here, tmp_path, bucket / "first.mar", bucket / "first.mar.sig")[::2] == (0, FILES[:2])


@pytest.mark.parametrize("fault", ["by another key", "of another archive", "damaged", "not there"])
def test_one_fault_keeps_all_of_them_out_of_the_store(
    run_here: RunHere, bucket: Path, listed: Path, tmp_path: Path, fault: str
) -> None:
    second = bucket / "second.mar"
    if fault == "by another key":
        sign(second, tmp_path / "keys" / "other.key")
        said_of_it = "which is none of the trusted keys"
    elif fault == "of another archive":
        path = bucket / "second.mar.sig"
        path.write_text(path.read_text().replace('"sha256": "', '"sha256": "0'))
        said_of_it = "its signature is not by sha256:"
    elif fault == "damaged":
        second.write_bytes(second.read_bytes()[:-1])
        said_of_it = "not a readable archive"
    else:
        second.unlink()
        said_of_it = "/second.mar: its server answers 404"
    status, said, files = fetch(run_here, tmp_path, "--list", listed)
    assert (status, files) == (1, [])
    assert said_of_it in said
    assert "second.mar" in said
    assert ".fetched-" not in said


def test_an_archive_without_an_address_of_its_signature_is_named(run_here: RunHere, url: str, tmp_path: Path) -> None:
    status, said, files = fetch(run_here, tmp_path, f"{url}/first.mar?{SECRET}")
    assert (status, files) == (1, [])
    assert "first.mar: expected two addresses: NAME.mar, and its signature NAME.mar.sig" in said


@pytest.mark.parametrize(
    ("addresses", "said_of_them"),
    [
        ([], "no archive is named"),
        (["https://example.com/first.zip"], "expected an archive, NAME.mar, or its signature"),
        (["https://example.com/a/first.mar", "https://example.com/b/first.mar"], "a second first.mar"),
        (
            [f"s3://b/first.mar?{SECRET}"],
            "s3://b/first.mar: expected http:// or https://, a file or a folder; got s3://",
        ),
        ([f"ftp://me:{PASSWORD}@host/first.mar"], "ftp://host/first.mar: expected http:// or https://"),
        ([f"https://me:{PASSWORD}@[::1/first.mar?{SECRET}"], "https://[::1/first.mar: expected https://HOST/NAME.mar"),
        ([f"https://me:{PASSWORD}@h\u2100/first.mar"], "first.mar: expected https://HOST/NAME.mar"),
        ([f"host/first.zip?{SECRET}"], "host/first.zip: expected an archive"),
    ],
    ids=["none", "another kind", "two of a name", "S3", "FTP", "a broken host", "a host of odd letters", "no scheme"],
)
def test_addresses_that_make_no_store_are_refused_before_anything_is_fetched(
    run_here: RunHere, bucket: Path, tmp_path: Path, addresses: list[str], said_of_them: str
) -> None:
    status, said, files = fetch(run_here, tmp_path, *addresses)
    assert (status, files) == (1, [])
    assert said_of_them in said


@pytest.mark.parametrize(
    ("address", "told"),
    [
        (f"http://me:{PASSWORD}@127.0.0.1:1/first.mar?{SECRET}", "http://127.0.0.1:1/first.mar: cannot be fetched ("),
        (f"http://127.0.0.1:99999/first.mar?{SECRET}", "http://127.0.0.1:99999/first.mar: cannot be fetched ("),
        (f"http://{'a' * 70}.com/first.mar?{SECRET}", ".com/first.mar: cannot be fetched ("),
        ("nowhere/first.mar", "nowhere/first.mar: cannot be read (No such file or directory)"),
    ],
    ids=["a closed port", "no port", "no host", "no file"],
)
def test_what_cannot_be_had_is_told_with_its_port_and_without_secrets(
    run_here: RunHere, bucket: Path, tmp_path: Path, address: str, told: str
) -> None:
    status, said, files = fetch(run_here, tmp_path, address, address.replace("first.mar", "first.mar.sig"))
    assert (status, files) == (1, [])
    assert told in said


@pytest.mark.parametrize(
    ("content", "status", "told"),
    [("\ufefflisted".encode(), 0, "signed by"), (b"\xff\xfe", 1, "addresses.txt: byte 0 is not UTF-8; save it as")],
    ids=["with a byte order mark", "of another encoding"],
)
def test_a_list_is_read_as_editors_write_it(
    run_here: RunHere, bucket: Path, tmp_path: Path, content: bytes, status: int, told: str
) -> None:
    path = tmp_path / "addresses.txt"
    path.write_bytes(content.replace(b"listed", str(bucket).encode()))
    found, said, _ = fetch(run_here, tmp_path, "--list", path)
    assert found == status
    assert told in said


def test_a_store_that_cannot_take_all_gets_nothing(run_here: RunHere, bucket: Path, tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    assert "store: a file; expected the folder that gets the archives" in fetch(run_here, tmp_path, bucket)[1]
    (tmp_path / "store").unlink()
    (tmp_path / "store" / "second.mar.sig").mkdir(parents=True)
    status, said, files = fetch(run_here, tmp_path, bucket)
    assert (status, files) == (1, ["second.mar.sig"])
    assert "second.mar.sig: a folder, where a file is to come; move it away" in said


def test_what_a_killed_fetch_left_goes_when_it_is_old(run_here: RunHere, bucket: Path, tmp_path: Path) -> None:
    old, under_way = (tmp_path / "store" / f".fetched-{name}" for name in ("old", "new"))
    for folder in (old, under_way):
        folder.mkdir(parents=True)
        (folder / "first.mar").write_bytes(b"half of it")
    os.utime(old, (0, 0))
    status, said, files = fetch(run_here, tmp_path, bucket)
    assert (status, files) == (0, [under_way.name, *FILES]), said


def test_a_server_that_is_not_there_is_told_without_the_secret(run_here: RunHere, listed: Path, tmp_path: Path) -> None:
    listed.write_text(listed.read_text().replace("127.0.0.1", "nowhere.invalid"))
    status, said, files = fetch(run_here, tmp_path, "--list", listed)
    assert (status, files) == (1, [])
    assert "first.mar: cannot be fetched (ConnectionError)" in said


def test_a_file_that_breaks_off_is_not_kept(
    run_here: RunHere, listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Quiet, "most", 1000)
    status, said, files = fetch(run_here, tmp_path, "--list", listed)
    assert (status, files) == (1, [])
    assert "first.mar: cannot be fetched (" in said


def test_a_file_that_does_not_end_is_not_kept(
    run_here: RunHere, listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "MOST_ARCHIVE_BYTES", 1000)
    status, said, files = fetch(run_here, tmp_path, "--list", listed)
    assert (status, files) == (1, [])
    assert "first.mar: larger than 1,000 bytes" in said
