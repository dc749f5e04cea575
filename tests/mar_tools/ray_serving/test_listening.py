"""The port of an ingress: bounded request heads, errors in our form, a port that several share, a clean end."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mar_tools.ray_serving import listening
from mar_tools.ray_serving.listening import HEAD_BYTES, HttpServer
from mar_tools.serving.ports import find_free_ports

HOST = "127.0.0.1"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def free_port() -> int:
    (port,) = find_free_ports(1)
    return port


class Application:
    """One of ASGI that answers when it is told to. bodies: what it was sent."""

    def __init__(self) -> None:
        self.asked = self.left = 0
        self.bodies: list[bytes] = []
        self.open = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += 1
        message: dict[str, Any] = {"more_body": True}
        body = b""
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        self.bodies.append(body)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.left += 1
            raise
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


def run(check: Callable[[Application, HttpServer, int], Awaitable[None]], free_port: int) -> None:
    async def do() -> None:
        application = Application()
        server = HttpServer(application, HOST, free_port)
        server.start()
        try:
            await check(application, server, free_port)
        finally:
            application.open.set()
            await server.stop()

    asyncio.run(do())


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while True:
        try:
            return await asyncio.open_connection(HOST, port)
        except ConnectionRefusedError:  # it is about to listen
            await asyncio.sleep(0)


async def send(port: int, data: bytes) -> bytes:
    """Return all that comes until the server ends the connection."""
    reader, writer = await connect(port)
    writer.write(data)
    received = await reader.read()
    writer.close()
    return received


CLOSING = GET.replace(b"Host", b"Connection: close\r\nHost")
BAD = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "one long header": b"GET / HTTP/1.1\r\nX-Long: " + b"a" * (HEAD_BYTES + 1) + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\n" + b"X-Many: 1\r\n" * (HEAD_BYTES // 6) + b"\r\n",
    "a long path": b"GET /" + b"a" * (HEAD_BYTES + 1) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tunnel": b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
    "length and pieces": b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_is_no_request_is_told_in_json(data: bytes, free_port: int) -> None:
    async def check(application: Application, __: HttpServer, port: int) -> None:
        application.open.set()
        received = await send(port, data)
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert (json.loads(body)["code"], json.loads(body)["type"]) == (400, "BadRequestError")
        assert application.asked == 0

    run(check, free_port)


def test_a_header_without_end_ends_the_connection(free_port: int) -> None:
    async def check(application: Application, _: HttpServer, port: int) -> None:
        try:
            received = await send(port, b"GET / HTTP/1.1\r\nX-Long: " + b"a" * (64 * HEAD_BYTES))
        except ConnectionError:  # it did not read all of it, so the answer may be lost on its way
            received = b"HTTP/1.1 400 "
        assert received.startswith(b"HTTP/1.1 400 ")
        assert application.asked == 0

    run(check, free_port)


UPGRADE = (
    b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
)
LONG_BODY = b"picture" * 50_000
OFFERING = {
    "a body": UPGRADE + b"Content-Length: 350000\r\n\r\n" + LONG_BODY,
    "pieces": UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n55730\r\n" + LONG_BODY + b"\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("data", OFFERING.values(), ids=OFFERING)
def test_a_client_that_offers_http_2_is_served_as_the_others(data: bytes, free_port: int) -> None:
    async def check(application: Application, _: HttpServer, port: int) -> None:
        application.open.set()
        received = await send(port, data + data + CLOSING)
        assert received.count(b"HTTP/1.1 200 ") == 3
        assert application.bodies == [LONG_BODY, LONG_BODY, b""]

    run(check, free_port)


def test_a_request_behind_one_that_is_answered_late_is_answered_too(
    free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "HEAD_TIMEOUT_S", 0.05)

    async def check(application: Application, _: HttpServer, port: int) -> None:
        reader, writer = await connect(port)
        writer.write(GET + CLOSING[:-2])
        await asyncio.sleep(0.2)
        writer.write(CLOSING[-2:])
        application.open.set()
        assert (await reader.read()).count(b"ok") == 2
        writer.close()

    run(check, free_port)


def test_headers_within_the_bound_pass(free_port: int) -> None:
    async def check(application: Application, _: HttpServer, port: int) -> None:
        application.open.set()
        long = CLOSING.replace(b"Host", b"X-Long: " + b"a" * (HEAD_BYTES // 2) + b"\r\nHost")
        assert (await send(port, long)).endswith(b"ok")

    run(check, free_port)


@pytest.mark.parametrize("begun", [b"", b"GET / HT", GET[:-2]], ids=["nothing", "a line", "headers"])
def test_a_connection_that_asks_nothing_is_ended(begun: bytes, free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "HEAD_TIMEOUT_S", 0.05)

    async def check(application: Application, _: HttpServer, port: int) -> None:
        assert await send(port, begun) == b""
        assert application.asked == 0

    run(check, free_port)


def test_a_slow_answer_is_not_cut_by_the_bound_on_heads(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "HEAD_TIMEOUT_S", 0.05)

    async def check(application: Application, _: HttpServer, port: int) -> None:
        sending = asyncio.ensure_future(send(port, CLOSING))
        await asyncio.sleep(0.2)
        application.open.set()
        assert (await sending).endswith(b"ok")

    run(check, free_port)


def test_a_client_that_leaves_is_not_waited_for(free_port: int) -> None:
    async def check(application: Application, __: HttpServer, port: int) -> None:
        await send(port, b"no HTTP")  # until it listens
        for number in (1, 2):
            _, writer = await asyncio.open_connection(HOST, port)
            writer.write(GET)
            while application.asked < number:
                await asyncio.sleep(0)
            writer.transport.abort()
            while application.left < number:
                await asyncio.sleep(0)
        application.open.set()
        assert (await send(port, CLOSING)).endswith(b"ok")
        assert (application.asked, application.left) == (3, 2)

    run(check, free_port)


def test_two_share_a_port_and_the_one_that_stops_answers_what_it_has(free_port: int) -> None:
    async def check(application: Application, server: HttpServer, port: int) -> None:
        early = asyncio.ensure_future(send(port, CLOSING))
        while not application.asked:
            await asyncio.sleep(0.001)
        other = Application()
        other.open.set()
        second = HttpServer(other, HOST, port)
        second.start()
        await asyncio.sleep(0.05)
        stopping = asyncio.ensure_future(server.stop())
        await asyncio.sleep(0.3)  # until it listens no more
        assert [(await send(port, CLOSING)).endswith(b"ok") for _ in range(8)] == [True] * 8
        assert (other.asked, stopping.done()) == (8, False)
        application.open.set()
        assert (await early).endswith(b"ok")
        await stopping
        await second.stop()

    run(check, free_port)
