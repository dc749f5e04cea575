"""What a hostile or broken peer of the front does: raw requests, slow senders, an upstream that fails as it is told."""

import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from http_fakes import Answer, Request, serve_requests

Address = tuple[str, int]


def connect(address: Address, timeout_s: float = 5.0, source: str = "") -> ssl.SSLSocket:
    """A TLS connection of HTTP/1.1, with whatever certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection(address, timeout_s, (source, 0)))


def exchange(address: Address, request: bytes, timeout_s: float = 5.0) -> bytes:
    """All that is answered until the other side closes or is silent for `timeout_s`."""
    with connect(address) as connection:
        answer = b""
        try:
            connection.settimeout(timeout_s)
            connection.sendall(request)
            while piece := connection.recv(65536):
                answer += piece
        except OSError:  # closed in the middle, or silent
            pass
        return answer


@dataclass
class Upstream:
    """In TorchServe's place: keeps what it is asked; answers as told after `delay_s`, once `gate` is open."""

    address: str
    status: int = 200
    delay_s: float = 0.0
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    gate: threading.Event = field(default_factory=threading.Event)


@contextmanager
def upstream() -> Iterator[Upstream]:
    def answer(request: Request) -> Answer:
        headers = {name.lower(): value for name, value in request.headers.items()}
        told.requests.append((request.path, headers, request.body))
        time.sleep(told.delay_s)
        told.gate.wait()
        return Answer(told.status, b"its own say", told.headers)

    with serve_requests(answer) as url:
        told = Upstream(url)
        told.gate.set()
        yield told


class SlowSenders:
    """Half of them send their header byte by byte and never end it, the others stop in the middle of a body."""

    def __init__(self, address: Address, key: str, count: int) -> None:
        bodies = (
            f"POST /predictions/digits HTTP/1.1\r\nHost: x\r\nX-Api-Key: {key}\r\nContent-Type: image/png\r\n"
            "Content-Length: 100000\r\n\r\nthe beginning"
        ).encode()
        with ThreadPoolExecutor(8) as pool:
            self._connections = list(pool.map(lambda _: connect(address, 30), range(count)))
        self._drip = self._connections[: count // 2]
        for connection in self._connections[count // 2 :]:
            connection.sendall(bodies)
        for connection in self._drip:
            connection.sendall(b"POST /predictions/digits HTTP/1.1\r\nX-Slow: ")

    def wait_until_cut(self, timeout_s: float) -> int:
        """How many are still connected after `timeout_s`, at most."""
        deadline = time.monotonic() + timeout_s
        alive = list(self._connections)
        while alive and time.monotonic() < deadline:
            alive = [connection for connection in alive if not self._is_cut(connection)]
            time.sleep(0.3)
        for connection in self._connections:
            connection.close()
        return len(alive)

    def _is_cut(self, connection: ssl.SSLSocket) -> bool:
        try:
            if connection in self._drip:
                connection.sendall(b"x")
            connection.settimeout(0.001)
            while connection.recv(4096):  # an answer, then the end
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        finally:
            connection.settimeout(30)
        return True


Maker = Callable[[random.Random, bytes], bytes]
SMUGGLED = b"GET /management/models HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"
ONE_BYTE = b"Content-Length: 1"


def malformed_requests(count: int, key: str, seed: int = 20) -> Iterator[bytes]:
    """Of all kinds in turn; the bytes differ."""
    chance = random.Random(seed)
    kinds = list(KINDS.values())
    for number in range(count):
        yield kinds[number % len(kinds)](chance, f"X-Api-Key: {key}".encode())


def head(*lines: bytes) -> bytes:
    return b"".join(line + b"\r\n" for line in (b"POST /predictions/digits HTTP/1.1", b"Host: x", *lines, b""))


def get(path: bytes, key: bytes) -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n" + key + b"\r\n\r\n"


def word(r: random.Random) -> bytes:
    return r.randbytes(r.randrange(1, 12)).hex().upper().encode()


def digits(r: random.Random) -> bytes:
    return b"%d" % r.randrange(6, 99)


def long(r: random.Random) -> bytes:
    return b"a" * r.randrange(33000, 60000)


KINDS: dict[str, Maker] = {
    "noise": lambda r, key: r.randbytes(r.randrange(1, 400)) + b"\r\n\r\n",
    "no version": lambda r, key: b"GET /" + word(r) + b"\r\n\r\n",
    "unknown version": lambda r, key: b"GET / HTTP/" + digits(r) + b".1\r\nHost: x\r\n\r\n",
    "unknown method": lambda r, key: word(r) + b" /v2 HTTP/1.1\r\nHost: x\r\n\r\n",
    "no host": lambda r, key: head(key, ONE_BYTE).replace(b"Host: x\r\n", b"") + b"x",
    "two hosts": lambda r, key: head(key, b"Host: y", ONE_BYTE) + b"x",
    "two lengths": lambda r, key: head(key, b"Content-Length: 5", b"Content-Length: " + digits(r)) + SMUGGLED,
    "length and chunks": lambda r, key: head(key, b"Content-Length: 4", CHUNKED) + b"0\r\n\r\n" + SMUGGLED,
    "chunks twice": lambda r, key: head(key, CHUNKED, b"Transfer-Encoding: identity") + b"0\r\n\r\n" + SMUGGLED,
    "hidden chunks": lambda r, key: head(key, b"Transfer-Encoding:\x0bchunked") + b"0\r\n\r\n" + SMUGGLED,
    "unknown coding": lambda r, key: head(key, b"Transfer-Encoding: " + word(r)) + b"x",
    "bad chunk": lambda r, key: head(key, CHUNKED) + b"zz\r\n" + word(r) + b"\r\n0\r\n\r\n",
    "endless chunk": lambda r, key: head(key, CHUNKED) + b"f" * r.randrange(17, 99) + b"\r\n",
    "negative length": lambda r, key: head(key, b"Content-Length: -" + digits(r)) + b"x",
    "length of words": lambda r, key: head(key, b"Content-Length: x" + word(r)) + b"x",
    "too large a length": lambda r, key: head(key, b"Content-Length: " + b"9" * r.randrange(8, 60)),
    "long header": lambda r, key: head(key, b"X-Long: " + long(r)),
    "many headers": lambda r, key: head(key, *[b"X-%d: " % i + b"a" * 200 for i in range(r.randrange(800, 900))]),
    "long path": lambda r, key: get(b"/" + long(r), key),
    "NUL in a header": lambda r, key: head(key, b"X-Nul: a\x00b", ONE_BYTE) + b"x",
    "NUL in the path": lambda r, key: get(b"/v2/models/digits%00" + word(r), key),
    "bare LF": lambda r, key: head(key, b"Content-Length: 5").replace(b"\r", b"") + SMUGGLED,
    "bare CR": lambda r, key: head(key, b"X-A: b\rTransfer-Encoding: chunked", ONE_BYTE) + b"x",
    "folded header": lambda r, key: head(key, b"X-Fold: a\r\n\tb", ONE_BYTE) + b"x",
    "space before the colon": lambda r, key: head(key, b"Content-Length : 5") + SMUGGLED,
    "no colon": lambda r, key: head(key, word(r), ONE_BYTE) + b"x",
    "upgrade": lambda r, key: head(key, b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", ONE_BYTE) + b"x",
    "absolute path": lambda r, key: get(b"http://127.0.0.1:8081/models", key),
    "tunnel": lambda r, key: get(b"127.0.0.1:8081", key).replace(b"GET", b"CONNECT"),
    "way up": lambda r, key: get(b"/.." * r.randrange(1, 9) + b"/models", key),
    "hidden way up": lambda r, key: get(b"/v2/models/%2e%2e%2f%2e%2e%2fmodels", key),
    "not even HTTP/2": lambda r, key: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + r.randbytes(200),
    "noise as an image": lambda r, key: head(key, b"Content-Type: image/png", b"Content-Length: 50") + r.randbytes(50),
}
