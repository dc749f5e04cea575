"""How an ingress asks a replica: over a connection of their own, many requests at once, in msgpack.

A call between actors of Ray costs several times what a small model does. Ray places, watches and replaces replicas;
pictures do not pass through it.
"""

import asyncio
import hmac
import itertools
import logging
import secrets
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgpack

from mar_tools.ray_serving.exchange import Answer, Request

logger = logging.getLogger("ray.serve")  # whose log of this replica it is
# A machine that is lost says nothing: the connection breaks after about 20 s without a sign of it.
SOCKET_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000),
)
FAILED, ASK_ANOTHER = 0, -1  # in the place of a status: the model raised; the replica is about to end


class Address(NamedTuple):
    """Where a replica listens. token: what it wants to hear first."""

    host: str
    port: int
    token: str


class Listening(NamedTuple):
    """What a replica says when it has loaded its archive: the fields of an Address, and its model card."""

    host: str
    port: int
    token: str
    card: dict[str, Any]

    @property
    def address(self) -> Address:
        return Address(self.host, self.port, self.token)


class LostError(Exception):
    """The replica ended, or failed, with the request."""


class AskAnotherError(Exception):
    """The replica is about to end and has not begun with the request."""


class Connection(asyncio.Protocol):
    """One side of it. received: what is done with each message."""

    def __init__(self, received: Callable[[Any], None]) -> None:
        self._received = received
        self._unpacker = msgpack.Unpacker(max_buffer_size=0)  # as the bodies; their sum is limited by the ingress
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._unpacker.feed(data)
        for message in self._unpacker:
            self._received(message)

    def send(self, message: object) -> None:
        self._transport.write(msgpack.packb(message))

    def close(self) -> None:
        self._transport.abort()


class Channel(Connection):
    """The side of the ingress. on_room: called when the replica has answered, on_end when the connection has ended."""

    def __init__(self, token: str, on_room: Callable[["Channel"], None], on_end: Callable[["Channel"], None]) -> None:
        super().__init__(self._settle)
        self._token, self._on_room, self._on_end = token, on_room, on_end
        self._numbers = itertools.count()
        self._under_way: dict[int, asyncio.Future[Answer]] = {}
        self.is_open = False
        self.is_ending = False

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    def ask(self, request: Request) -> "asyncio.Future[Answer]":
        """Return the answer to come: it raises LostError or AskAnotherError."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        number = next(self._numbers)
        self._under_way[number] = future
        self.send((number, request.row, request.headers))
        return future

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        for level, name, value in SOCKET_OPTIONS:
            connection.setsockopt(level, name, value)
        self.is_open = True
        self.send(self._token)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        for future in self._under_way.values():
            fail(future, LostError())
        self._under_way.clear()
        self._on_end(self)

    def _settle(self, message: list[Any]) -> None:
        number, status, *rest = message
        future = self._under_way.pop(number)
        if status == ASK_ANOTHER:
            self.is_ending = True
            fail(future, AskAnotherError())
        elif status == FAILED:
            fail(future, LostError())
        elif not future.done():
            future.set_result(Answer(status, *rest))
        self._on_room(self)


def fail(future: "asyncio.Future[Any]", error: Exception) -> None:
    """Let a future raise, where somebody still waits for it."""
    if not future.done():
        future.set_exception(error)


class ReplicaServer:
    """The side of the replica. answer: a request -> its answer to come."""

    def __init__(self, answer: "Callable[[Request], asyncio.Future[Answer]]") -> None:
        self._answer = answer
        self._token = secrets.token_urlsafe(32)
        self._server: asyncio.Server | None = None
        self._is_ending = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.under_way = 0
        self.last_asked = time.monotonic()

    async def listen(self, host: str) -> Address:
        """Listen on a free port of an address of this machine, and return where; a second call only returns it."""
        if self._server is None:
            self._server = await asyncio.get_running_loop().create_server(self._accept, host, 0)
        return Address(host, self._server.sockets[0].getsockname()[1], self._token)

    async def drain(self) -> None:
        """Take no request any more, and return when those under way are answered."""
        self._is_ending = True
        await self._idle.wait()

    def _accept(self) -> Connection:
        is_known = False

        def receive(message: Any) -> None:
            nonlocal is_known
            if is_known:
                self._take(connection, *message)
            elif isinstance(message, str) and hmac.compare_digest(message.encode(), self._token.encode()):
                is_known = True
            else:
                connection.close()

        connection = Connection(receive)
        return connection

    def _take(self, connection: Connection, number: int, row: dict[str, bytes], headers: dict[str, Any]) -> None:
        if self._is_ending:
            connection.send((number, ASK_ANOTHER))
            return
        self.under_way += 1
        self.last_asked = time.monotonic()
        self._idle.clear()
        self._answer(Request(row, headers)).add_done_callback(lambda done: self._give(connection, number, done))

    def _give(self, connection: Connection, number: int, done: "asyncio.Future[Answer]") -> None:
        error = done.exception()
        if error is not None:
            logger.error("a batch failed", exc_info=error)
        try:
            connection.send((number, FAILED) if error is not None else (number, *done.result()))
        except (TypeError, ValueError, OverflowError):  # a header of a handler that is none, as a number of numpy
            logger.exception("an answer cannot be sent")
            connection.send((number, FAILED))
        finally:
            self.under_way -= 1
            if not self.under_way:
                self._idle.set()
