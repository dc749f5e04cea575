"""Where the token comes from, and a new one when the server refuses it."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from vision_client.errors import AuthorizationError

# The token itself, TorchServe's key_file.json (a path, or a str that ends in .json), or what returns a token.
TokenSource: TypeAlias = str | os.PathLike[str] | Callable[[], str] | None


class Tokens:
    """The token in use, shared by all threads. `renew` asks the source again, once for all threads that wait."""

    def __init__(self, source: TokenSource) -> None:
        self._read = _reader_of(source)
        self._lock = threading.Lock()
        self._current: str | None = None
        self._known = False

    def current(self) -> str | None:
        """Raises AuthorizationError when the key file cannot be read."""
        with self._lock:
            if not self._known:
                self._current, self._known = self._read(), True
            return self._current

    def renew(self, refused: str | None) -> bool:
        """Return whether there is another token than the refused one now."""
        with self._lock:
            if self._current == refused:
                self._current = self._read()
            return self._current != refused


def _reader_of(source: TokenSource) -> Callable[[], str | None]:
    if callable(source):
        return source
    if isinstance(source, os.PathLike) or (source is not None and source.endswith(".json")):
        path = Path(source)
        return lambda: read_key_file(path)
    return lambda: source


def read_key_file(path: Path) -> str:
    """Return the inference key of TorchServe's key_file.json. Raises AuthorizationError."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["inference"]["key"])
    except OSError as error:
        hint = "TorchServe writes it at its start, into the folder that it runs in"
        raise AuthorizationError(None, "AuthorizationError", f"{path}: {error.strerror}; {hint}") from error
    except (ValueError, KeyError, TypeError) as error:
        hint = 'expected {"inference": {"key": "..."}, ...} as TorchServe writes it'
        raise AuthorizationError(None, "AuthorizationError", f"{path}: no inference key in it; {hint}") from error
