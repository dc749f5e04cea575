"""The keys of a front's clients: each is shown once, and kept as its SHA-256 in a map that nginx reads."""

import hashlib
import os
import re
import secrets
from pathlib import Path

from filelock import FileLock

from vision_serving.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
LINE = re.compile(rf'"([0-9a-f]{{64}})" "({NAME.pattern})";')
PRIVATE = 0o600


class ClientKeys:
    """A file with a line `"<SHA-256 of a key>" "<name of the client>";` for each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = FileLock(path.with_suffix(".lock"))  # of two that change it, neither loses what the other wrote

    def names(self) -> list[str]:
        return sorted(self._read())

    def find(self, key: str) -> str | None:
        """Return the client whose key this is, None for an unknown one. Raises ConfigError for a broken file."""
        digest = hashlib.sha256(key.encode()).hexdigest()
        return next((name for name, known in self._read().items() if known == digest), None)

    def add(self, name: str) -> str:
        """Return a new key. Raises ConfigError for a name that is taken or cannot stand in the file."""
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"client {name!r}: expected 1 to 64 letters, digits, '_', '.' or '-', and a letter or digit first"
            )
        key = secrets.token_urlsafe(32)
        with self._lock:
            digests = self._read()
            if name in digests:
                raise ConfigError(f"client {name!r} has a key; give the new one another name, then remove the old one")
            self._write({**digests, name: hashlib.sha256(key.encode()).hexdigest()})
        return key

    def remove(self, name: str) -> None:
        """Raises ConfigError when there is none of that name."""
        with self._lock:
            digests = self._read()
            if name not in digests:
                raise ConfigError(f"no client {name!r}; there are {sorted(digests) or 'none'}")
            self._write({other: digest for other, digest in digests.items() if other != name})

    def write_missing(self) -> None:
        """Write an empty file where there is none: nginx wants one."""
        if self._path.is_file():
            return
        with self._lock:  # a first key may come meanwhile
            if not self._path.is_file():
                self._write({})

    def _read(self) -> dict[str, str]:
        """Read the digests by name."""
        if not self._path.is_file():
            return {}
        digests = {}
        for number, line in enumerate(self._path.read_text(encoding="ascii").splitlines(), 1):
            found = LINE.fullmatch(line)
            if not found:
                raise ConfigError(f'{self._path}: line {number}: expected "<SHA-256>" "<name>";')
            digests[found[2]] = found[1]
        return digests

    def _write(self, digests: dict[str, str]) -> None:
        """Write whole or not at all, and for the owner's eyes only."""
        temporary = self._path.with_suffix(".new")
        temporary.touch(mode=PRIVATE)
        temporary.write_text("".join(f'"{digest}" "{name}";\n' for name, digest in digests.items()), encoding="ascii")
        os.replace(temporary, self._path)
