"""One HTTP request byte for byte as given: `requests` would tidy up its path, its headers and its method first."""

from collections.abc import Sequence
from typing import NamedTuple

from lab.testbed.raw_http import request_head, send_raw
from mar_tools.serving.ports import LOOPBACK

TIMEOUT_S = 30.0
Headers = Sequence[tuple[str, str]]


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
    given = [("Connection", "close"), ("Content-Length", str(len(body))), *headers]
    answer = send_raw(port, [request_head(target, given, method, host) + body], TIMEOUT_S, method=method)
    return Reply(answer.status, answer.headers, answer.body.decode("utf-8", "replace"))


def bearer(token: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {token}")
