"""The HTTP server of an ingress: uvicorn, with bounds on what comes before a request and our form of its errors."""

import asyncio
import socket
from contextlib import suppress
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from mar_tools.ray_serving.refusals import JSON_TYPE, RefusalError, to_answer

HEAD_BYTES = 64 << 10  # of a request's first line and its headers: the parser takes them without end
HEAD_TIMEOUT_S = 10.0  # for them to come, as at the front
KEEP_ALIVE_S = 75
TASK = "task"  # in the state of a scope: the one that answers it
NOT_HTTP = "the request is not HTTP/1.1, or its headers are larger than 64 KiB"


class BoundedProtocol(HttpToolsProtocol):  # type: ignore[misc]
    """uvicorn's, for a request line and headers of a bounded size and time."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        if self._awaits_head:
            self._head_bytes += len(data)  # a header is told below when it ends, and need not end
        super().data_received(data)
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
        self._awaits_head = False
        self._head_timer.cancel()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        answer = to_answer(RefusalError(400, "BadRequestError", NOT_HTTP), "")
        head = f"content-type: {JSON_TYPE}\r\ncontent-length: {len(answer.body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[400] + head.encode() + answer.body)
        self.transport.close()

    def _expect_head(self) -> None:
        self._awaits_head, self._head_bytes = True, 0
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def _count(self, *parts: bytes) -> None:
        """Raises ValueError, which ends the connection, for more than there may be."""
        self._head_bytes += sum(map(len, parts))
        if self._head_bytes > HEAD_BYTES:
            raise ValueError(NOT_HTTP)


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
