"""One HTTP request byte for byte as given: `requests` would tidy up its path, its headers and its method first."""

import socket
from collections.abc import Iterable
from http.client import HTTPException, HTTPResponse
from typing import NamedTuple

from mar_tools.serving.ports import LOOPBACK

TIMEOUT_S = 30.0
Headers = Iterable[tuple[str, str]]


class Reply(NamedTuple):
    """status: 0 where the server closed the connection without an answer."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def refused_its_token(self) -> bool:
        return self.status == 400 and '"InvalidKeyException"' in self.body


def ask(
    port: int, target: str, method: str = "GET", headers: Headers = (), body: bytes = b"", host: str = LOOPBACK
) -> Reply:
    """Ask a server of this machine. host: of the Host header."""
    given = [("Host", host), ("Connection", "close"), ("Content-Length", str(len(body))), *headers]
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in given), "", ""]
    with socket.create_connection((LOOPBACK, port), timeout=TIMEOUT_S) as connection:
        connection.sendall("\r\n".join(lines).encode("latin-1") + body)
        response = HTTPResponse(connection, method=method)
        try:
            response.begin()
            return Reply(response.status, dict(response.getheaders()), response.read().decode("utf-8", "replace"))
        except (HTTPException, ConnectionError):
            return Reply(0, {}, "")


def bearer(token: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {token}")
