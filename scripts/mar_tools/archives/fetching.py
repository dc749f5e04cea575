"""Archives from elsewhere into a store, which gets them when a trusted key has signed all of them, and else nothing.

An address may be a secret: an object store's presigned one opens the file to whoever has it. So no message has a query.
"""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import requests
import urllib3

from mar_tools.archives.archive import open_archive
from mar_tools.archives.signing import MOST_BYTES, Keys, Signature, check_signature
from vision_serving.errors import ConfigError

ARCHIVE, SIGNATURE = ".mar", ".mar.sig"
MOST_ARCHIVE_BYTES = 4 << 30  # as an archive of ours has at most
SCHEMES = ("http", "https")
CONNECT_S, SILENCE_S = 10, 60
PIECE = 1 << 20
USER = re.compile(r"(?<=://)[^/]*@")
UNFINISHED = ".fetched-"
LEFT_S = 86400.0


def fetch_archives(addresses: Sequence[str], keys: Keys, store: Path) -> list[Signature]:
    """Return the signatures of what the store has now. Raises ConfigError, and then the store has nothing new.

    addresses: URLs, files, and folders, whose archives and signatures are meant.
    """
    named = name_addresses(addresses)
    if store.exists() and not store.is_dir():
        raise ConfigError(f"{store}: a file; expected the folder that gets the archives")
    folders = [str(store / name) for name in named if (store / name).is_dir()]
    if folders:
        raise ConfigError(f"{folders[0]}: a folder, where a file is to come; move it away")
    store.mkdir(mode=0o755, parents=True, exist_ok=True)
    _remove_leftovers(store)
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=store) as place:
        folder = Path(place)
        for name, address in named.items():
            most = MOST_BYTES if name.endswith(SIGNATURE) else MOST_ARCHIVE_BYTES
            with (folder / name).open("xb") as file:
                _copy(address, file, most)
        archives = sorted(folder.glob(f"*{ARCHIVE}"))
        try:
            found = [check_signature(open_archive(path), keys) for path in archives]
        except ConfigError as error:  # it names a folder that is gone when somebody reads it
            raise ConfigError(str(error).replace(f"{folder}{os.sep}", "")) from error
        for name in named:
            (folder / name).chmod(0o644)
            os.replace(folder / name, store / name)
    return found


def _remove_leftovers(store: Path) -> None:
    """Remove what a fetch left that was killed a day ago. Another that is under way now is younger."""
    for folder in store.glob(f"{UNFINISHED}*"):
        with suppress(FileNotFoundError):
            if time.time() - folder.stat().st_mtime > LEFT_S:
                shutil.rmtree(folder)


def name_addresses(addresses: Sequence[str]) -> dict[str, str]:
    """Return the addresses by the names of their files. Raises ConfigError unless each archive has its signature."""
    named: dict[str, str] = {}
    for address in (each for given in addresses for each in _expand(given)):
        name = _path_of(address).name
        if not name.endswith((ARCHIVE, SIGNATURE)):
            raise ConfigError(f"{tell(address)}: expected an archive, NAME.mar, or its signature, NAME.mar.sig")
        if name in named:
            raise ConfigError(f"{tell(address)}: a second {name}; the store has one of each name")
        named[name] = address
    if not named:
        raise ConfigError("no archive is named; give addresses of archives and of their signatures")
    lonely = sorted({name.removesuffix(".sig") for name in named if not _has_partner(name, named)})
    if lonely:
        raise ConfigError(f"{', '.join(lonely)}: expected two addresses: NAME.mar, and its signature NAME.mar.sig")
    return named


def tell(address: str) -> str:
    """Return an address without what may be a secret: its query, its user."""
    return USER.sub("", address).partition("?")[0]


def _has_partner(name: str, named: dict[str, str]) -> bool:
    return (name.removesuffix(".sig") if name.endswith(SIGNATURE) else f"{name}.sig") in named


def _expand(given: str) -> Iterator[str]:
    path = Path(given)
    if not _is_url(given) and path.is_dir():
        yield from (str(each) for each in sorted(path.iterdir()) if each.name.endswith((ARCHIVE, SIGNATURE)))
    else:
        yield given


def _is_url(address: str) -> bool:
    """Raises ConfigError for a URL that nothing here fetches."""
    scheme, mark, _ = address.partition("://")
    if mark and scheme.lower() not in SCHEMES:
        raise ConfigError(f"{tell(address)}: expected http:// or https://, a file or a folder; got {scheme}://")
    return bool(mark)


def _path_of(address: str) -> Path:
    if not _is_url(address):
        return Path(address)
    try:
        return Path(urlsplit(address).path)
    except ValueError:  # its text may have the password
        raise ConfigError(f"{tell(address)}: expected https://HOST/NAME.mar; its host is none") from None


def _copy(address: str, file: BinaryIO, most: int) -> None:
    """Raises ConfigError where it cannot be had, or is larger."""
    size = 0
    for piece in _read(address):
        size += len(piece)
        if size > most:
            raise ConfigError(f"{tell(address)}: larger than {most:,} bytes")
        file.write(piece)


def _read(address: str) -> Iterator[bytes]:
    try:
        if not _is_url(address):
            with Path(address).open("rb") as file:
                yield from iter(lambda: file.read(PIECE), b"")
            return
        with requests.get(address, stream=True, timeout=(CONNECT_S, SILENCE_S)) as answer:
            if not answer.ok:
                raise ConfigError(f"{tell(address)}: its server answers {answer.status_code}")
            yield from answer.iter_content(PIECE)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:  # its text has the query
        raise ConfigError(f"{tell(address)}: cannot be fetched ({type(error).__name__})") from None
    except OSError as error:
        raise ConfigError(f"{tell(address)}: cannot be read ({error.strerror})") from None
