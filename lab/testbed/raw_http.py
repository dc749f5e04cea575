"""HTTP as no client library would send it: byte for byte as given, cut, endless, slow, and left behind."""

import io
import random
import re
import select
import socket
import ssl
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, IncompleteRead
from pathlib import Path
from urllib.parse import urlsplit

from mar_tools.serving.ports import LOOPBACK
from mar_tools.waiting import wait_until

RESET_AT_CLOSE = struct.pack("ii", 1, 0)
READ_BYTES = 65536
CONNECT_TIMEOUT_S = 5.0
HOLDER = "127.0.0.2"  # on Linux; a front counts the connections of an address
HeaderPairs = Mapping[str, str] | Sequence[tuple[str, str]]


@dataclass(frozen=True)
class RawAnswer:
    """status: 0 where none came. sent: bytes until the server answered or closed. closed: by the server, in time."""

    status: int
    headers: dict[str, str]
    body: bytes
    sent: int
    closed: bool
    seconds: float


def request_head(path: str, headers: HeaderPairs, method: str = "POST", host: str = "localhost") -> bytes:
    """Return all up to and with the empty line. A list of headers may hold one twice."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in pairs)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def send_raw(
    port: int, chunks: Iterable[bytes], timeout_s: float, half_close: bool = False, method: str = "POST"
) -> RawAnswer:
    """Send until it is answered or all is sent, then read an answer, or until the server closes.

    half_close: say that nothing more will come. method: of the request; an answer to HEAD has no body.
    """
    started, sent, received, closed = time.perf_counter(), 0, b"", True
    with socket.create_connection((LOOPBACK, port), CONNECT_TIMEOUT_S) as connection:
        connection.settimeout(timeout_s)
        try:
            for chunk in chunks:
                connection.sendall(chunk)
                sent += len(chunk)
                if select.select([connection], [], [], 0)[0]:
                    break
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        except TimeoutError:
            closed = False
        except OSError:
            pass  # the server closed; its answer may be there all the same
        while closed and not is_whole(received, method):
            try:
                data = connection.recv(READ_BYTES)
            except TimeoutError:
                closed = False
                break
            except OSError:
                break
            if not data:
                break
            received += data
        else:
            closed = False
    status, headers, body = parse_answer(received, method)
    return RawAnswer(status, headers, body, sent, closed, time.perf_counter() - started)


def is_whole(received: bytes, method: str = "POST") -> bool:
    """Return whether it is all of an answer. TorchServe keeps connections, even where it is asked to close them."""
    head, end, body = received.partition(b"\r\n\r\n")
    if end and method == "HEAD":
        return True
    if re.search(rb"\r\ntransfer-encoding: chunked", head, re.IGNORECASE):
        return body.endswith(b"0\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
    return length is not None and len(body) >= int(length[1])


def parse_answer(received: bytes, method: str) -> tuple[int, dict[str, str], bytes]:
    """Read status, headers and body; status 0 where it is no answer. A body that was cut is as long as it came."""
    response = HTTPResponse(_Received(received), method=method)  # type: ignore[arg-type]
    try:
        response.begin()
    except (HTTPException, OSError):
        return 0, {}, b""
    try:
        body = response.read()
    except IncompleteRead as error:
        body = error.partial
    return response.status, dict(response.getheaders()), body


class _Received:
    """In the place of a socket that all of this came through."""

    def __init__(self, received: bytes) -> None:
        self._received = received

    def makefile(self, _: str) -> io.BytesIO:
        return io.BytesIO(self._received)


def abandon(port: int, data: bytes) -> None:
    """Send something, and reset the connection."""
    with socket.create_connection((LOOPBACK, port), CONNECT_TIMEOUT_S) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        connection.sendall(data)


def send_slowly(port: int, count: int, head: bytes, seconds: float, pause_s: float = 0.1) -> int:
    """Send over so many connections a byte of a body at a time. Return how many the server kept until the end."""
    connections: list[socket.socket] = []
    try:
        for _ in range(count):
            connections.append(socket.create_connection((LOOPBACK, port), CONNECT_TIMEOUT_S))
            connections[-1].sendall(head)
        kept = set(connections)
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            kept = {connection for connection in kept if _sends_a_byte(connection)}
            time.sleep(pause_s)
        return len(kept)
    finally:
        for connection in connections:
            connection.close()


def _sends_a_byte(connection: socket.socket) -> bool:
    try:
        connection.sendall(b"x")
    except OSError:
        return False
    return True


def hold_connections(url: str, count: int, certificate: Path | None, most_s: float) -> int:
    """Hold so many, of an address of their own: half say nothing, half stop in a header. Return how many are left open.

    most_s: how long, unless the server closes all of them before.
    """
    place, context = urlsplit(url), ssl.create_default_context(cafile=certificate)
    target = (place.hostname, int(place.port or 0))
    connections: list[socket.socket] = []
    with ExitStack() as held:
        for number in range(count):
            with suppress(OSError):  # refused: it is not held
                connection = held.enter_context(socket.create_connection(target, CONNECT_TIMEOUT_S, (HOLDER, 0)))
                if number % 2 and place.scheme == "https":
                    connection = held.enter_context(context.wrap_socket(connection, server_hostname=place.hostname))
                if number % 2:
                    connection.sendall(request_head("/", {})[:-2])
                connections.append(connection)
        wait_until(lambda: not any(map(_is_open, connections)), most_s)
        return sum(map(_is_open, connections))


def _is_open(connection: socket.socket) -> bool:
    connection.settimeout(0.0)
    try:
        while received := connection.recv(READ_BYTES):
            pass
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False
    return bool(received)


def cut_places(count: int, length: int, choose: random.Random) -> Sequence[int]:
    """Return where to leave `count` requests: half of them when all is sent, the others before."""
    return [length] * (count // 2) + [choose.randrange(1, length) for _ in range(count - count // 2)]
