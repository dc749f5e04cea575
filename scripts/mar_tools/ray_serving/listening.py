"""The HTTP server of an ingress: uvicorn, with bounds on what comes before a request and our form of its errors."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from mar_tools.ray_serving.refusals import JSON_TYPE, RefusalError, to_answer

HEAD_BYTES = 64 << 10  # of a request's first line and its headers: the parser takes them without end
HEAD_TIMEOUT_S = 10.0  # for them to come, as at the front
KEEP_ALIVE_S = 75
TASK = "task"  # in the state of a scope: the one that answers it
OF_UPGRADES = (b"upgrade", b"http2-settings")
NOT_HTTP = "the request is not HTTP/1.1, or its headers are larger than 64 KiB"


class BoundedProtocol(HttpToolsProtocol):  # type: ignore[misc]
    """uvicorn's, for a request line and headers of a bounded size and time, and for clients that offer HTTP/2.

    The parser takes no body of a request with the header Upgrade, as Java's client sends it unless it is told not to.
    Such a request is parsed once more without that header, as the front drops it.
    """

    parser: Any
    _head_timer: asyncio.TimerHandle
    _upgrades = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        if self._awaits_head:
            self._head_bytes += len(data)  # a header is told below when it ends, and need not end
        self._unset_keepalive_if_required()
        try:
            while data:
                data = self._parse(data)
        except httptools.HttpParserError:
            self.send_400_response(NOT_HTTP)
        if self._awaits_head and self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(NOT_HTTP)

    def connection_lost(self, error: Exception | None) -> None:
        self._head_timer.cancel()
        super().connection_lost(error)
        if self.cycle is not None and not self.cycle.response_complete:
            task = self.scope["state"].get(TASK)
            if task is not None:  # nobody waits for it, so its place is for others
                task.cancel()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_timer.cancel()
        self._expect_head()

    def on_url(self, url: bytes) -> None:
        self._count(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(name, value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise ValueError(NOT_HTTP)
            self._upgrades = True
            return
        self._awaits_head = False
        self._head_timer.cancel()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self._upgrades:
            super().on_message_complete()

    def _parse(self, data: bytes) -> bytes:
        """Return what is left to parse: a request that offers an upgrade, without that, and what comes behind."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            head = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
            head += [b"%s: %s" % header for header in without_upgrade(self.headers)]
            self._upgrades = False
            self.parser = httptools.HttpRequestParser(self)
            return b"\r\n".join([*head, b"", data[upgrade.args[0] :]])
        return b""

    def send_400_response(self, msg: str) -> None:
        answer = to_answer(RefusalError(400, "BadRequestError", NOT_HTTP), "")
        head = f"content-type: {JSON_TYPE}\r\ncontent-length: {len(answer.body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[400] + head.encode() + answer.body)
        self.transport.close()

    def _expect_head(self) -> None:
        self._awaits_head, self._head_bytes = True, 0
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._end_late)

    def _end_late(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:  # the request before is not answered yet, and nothing is read until it is
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._end_late)

    def _count(self, *parts: bytes) -> None:
        """Raises ValueError, which ends the connection, for more than there may be."""
        self._head_bytes += sum(map(len, parts))
        if self._head_bytes > HEAD_BYTES:
            raise ValueError(NOT_HTTP)


def without_upgrade(headers: list[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """Return the headers of a request that asks for no upgrade. headers: their names in lower case."""
    for name, value in headers:
        if name == b"connection":
            kept = [each for each in value.split(b",") if each.strip().lower() not in OF_UPGRADES]
            if kept:
                yield name, b",".join(kept)
        elif name not in OF_UPGRADES:
            yield name, value


class HttpServer:
    """app: of ASGI. Several servers of a machine may share a port: each gets its share of the connections."""

    def __init__(self, app: Any, host: str, port: int) -> None:
        async def answer(scope: Any, receive: Any, send: Any) -> None:
            scope["state"][TASK] = asyncio.current_task()
            with suppress(asyncio.CancelledError):  # its client has left
                await app(scope, receive, send)

        self._place = (host, port)
        settings: dict[str, Any] = {
            "interface": "asgi3",
            "proxy_headers": False,
            "loop": "none",
            "ws": "none",
            "lifespan": "off",
            "log_config": None,
        }
        settings |= {"access_log": False, "server_header": False, "timeout_keep_alive": KEEP_ALIVE_S}
        self._server = uvicorn.Server(uvicorn.Config(answer, http=BoundedProtocol, **settings))
        self._serving: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen. Raises OSError where something else listens there."""
        family = socket.AF_INET6 if ":" in self._place[0] else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(self._place)
        self._serving = asyncio.get_running_loop().create_task(self._server.serve([listener]))

    async def stop(self) -> None:
        """Listen no more, and return when the requests under way are answered."""
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
