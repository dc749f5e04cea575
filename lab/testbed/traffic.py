"""Continuous traffic whose truth is known: what must come back for each request is said before it is sent.

`Traffic` sends at random times, whether or not the server keeps up, from a thread of its own, so that a test can break
things meanwhile. `send_all` sends a list over so many connections at a time.
"""

import asyncio
import math
import ssl
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
from yarl import URL

from mar_tools.load_testing.http_client import failures, open_session
from mar_tools.load_testing.open_loop import Pacer, draw_arrivals

PIECE_BYTES = 65536
RETRIED = (0, 500, 503, 507)  # what a worker that ended, or a full queue, is answered with; 0: not at all
Check = Callable[[bytes], str]  # what is wrong with a body, empty where nothing is


def anything(body: bytes) -> str:
    return ""


@dataclass(frozen=True)
class Ask:
    """One kind of request, and what must come back. good: it ought to be served, and is nobody's attempt to harm.

    pause_s: of a slow sender, before each piece of the body.
    """

    name: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    check: Check = anything
    good: bool = True
    method: str = "POST"
    pause_s: float = 0.0

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as a slow sender does, with a pause before each piece."""
        for start in range(0, len(self.body), PIECE_BYTES):
            await asyncio.sleep(self.pause_s)
            yield self.body[start : start + PIECE_BYTES]


@dataclass(frozen=True)
class Exchange:
    """A request and what came of it. Times by time.perf_counter.

    status: 0 where no answer came. problem: in which way the answer is not the expected one, empty where it is.
    earlier: the tries before this one, each answered with one of RETRIED.
    batch_failed: how many of the requests that shared its batch failed.
    """

    ask: Ask
    due: float
    finished: float
    status: int
    problem: str
    batch_size: int = 0
    earlier: tuple["Exchange", ...] = ()
    batch_failed: int = 0

    @property
    def latency_s(self) -> float:
        """Return seconds from the moment at which it was due, so that a stall is charged for all who had to wait."""
        return self.finished - self.due

    @property
    def is_wrong(self) -> bool:
        """Return a success that is not the right one: the worst of all failures."""
        return bool(self.problem) and self.status == 200

    @property
    def first(self) -> "Exchange":
        """Return what a client that does not try again would have had of it."""
        return self.earlier[0] if self.earlier else self


class Traffic:
    """Sends what `asks` yields at a mean rate per second, from `with` until its end, which waits for all answers.

    headers: of every request. tries: how often a request of a good kind is sent at most, where it gets one of RETRIED.
    """

    def __init__(
        self,
        url: str,
        asks: Iterable[Ask],
        rate: float,
        headers: Mapping[str, str] | None = None,
        seed: int = 0,
        timeout_s: float = 15.0,
        tries: int = 1,
        certificate: Path | None = None,
    ) -> None:
        self.exchanges: list[Exchange] = []
        self._sender = Sender(url, headers or {}, timeout_s, tries, certificate)
        self._asks = iter(asks)
        self._inserted: deque[Ask] = deque()
        self._rate = rate
        self._seed = seed
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self._begun = threading.Event()
        self._failure: BaseException | None = None

    def __enter__(self) -> "Traffic":
        self._thread.start()
        self._begun.wait()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(RuntimeError):  # its loop is closed: there was nothing left to ask
            self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def insert(self, ask: Ask) -> None:
        """Send it in place of the next one."""
        self._inserted.append(ask)

    def _run(self) -> None:
        try:
            asyncio.run(self._drive())
        except BaseException as error:  # of the driver itself: raised where the traffic ends
            self._failure = error
        finally:
            self._begun.set()

    async def _drive(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()
        problems: list[Exception] = []

        def send(due: float) -> None:
            try:
                ask = self._inserted.popleft() if self._inserted else next(self._asks, None)
            except Exception as error:
                problems.append(error)
                ask = None
            if ask is None:
                self._ended.set()
            elif not self._ended.is_set():
                tasks.difference_update([task for task in tasks if task.done() and not task.exception()])
                tasks.add(asyncio.create_task(self._exchange(session, ask, due)))

        async with self._sender.open() as session:
            begin = time.perf_counter()
            self._begun.set()
            arrivals = (begin + moment for moment in draw_arrivals(self._rate, math.inf, self._seed))
            with Pacer(arrivals, send) as pacer:
                await self._ended.wait()
                pacer.cancel()
            await asyncio.gather(*tasks)
        if problems:
            raise problems[0]

    async def _exchange(self, session: aiohttp.ClientSession, ask: Ask, due: float) -> None:
        self.exchanges.append(await self._sender.send(session, ask, due))


def send_all(
    url: str,
    asks: Sequence[Ask],
    connections: int,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 15.0,
    certificate: Path | None = None,
) -> list[Exchange]:
    """Return one exchange for each, in order; `connections` are under way at a time."""
    sender = Sender(url, headers or {}, timeout_s, certificate=certificate)

    async def work(session: aiohttp.ClientSession, left: Iterator[tuple[int, Ask]], found: dict[int, Exchange]) -> None:
        for number, ask in left:
            found[number] = await sender.send(session, ask, time.perf_counter())

    async def drive() -> dict[int, Exchange]:
        found: dict[int, Exchange] = {}
        left = iter(enumerate(asks))
        async with sender.open() as session:
            await asyncio.gather(*(work(session, left, found) for _ in range(connections)))
        return found

    exchanges = asyncio.run(drive())
    return [exchanges[number] for number in range(len(asks))]


@dataclass(frozen=True)
class Sender:
    """Sends one request over a connection of its own: one that the server just closed would look like a fault."""

    url: str
    headers: Mapping[str, str]
    timeout_s: float
    tries: int = 1
    certificate: Path | None = None  # that the server has signed itself

    def open(self) -> aiohttp.ClientSession:
        context = ssl.create_default_context(cafile=self.certificate) if self.certificate else True
        return open_session(self.timeout_s, limit=0, force_close=True, ssl=context)

    async def send(self, session: aiohttp.ClientSession, ask: Ask, due: float) -> Exchange:
        earlier: list[Exchange] = []
        while True:
            exchange = await self._send_once(session, ask, due)
            if not ask.good or exchange.status not in RETRIED or len(earlier) + 1 >= self.tries:
                return replace(exchange, earlier=tuple(earlier))
            earlier.append(exchange)

    async def _send_once(self, session: aiohttp.ClientSession, ask: Ask, due: float) -> Exchange:
        headers = {**self.headers, **ask.headers}
        url = URL(self.url + ask.path, encoded=True)  # as it stands: a client would mend what a hostile path is about
        try:
            data = ask.pieces() if ask.pause_s else ask.body
            async with session.request(ask.method, url, data=data, headers=headers) as response:
                body = await response.read()
        except failures() as error:
            return Exchange(ask, due, time.perf_counter(), 0, f"no answer ({type(error).__name__})")
        problem = _judge(ask, response.status, body)
        batch_size = int(response.headers.get("X-Batch-Size", 0))
        batch_failed = int(response.headers.get("X-Batch-Failed", 0))
        return Exchange(ask, due, time.perf_counter(), response.status, problem, batch_size, batch_failed=batch_failed)


def _judge(ask: Ask, status: int, body: bytes) -> str:
    if status != ask.status:
        return f"answered {status} instead of {ask.status}: {body[:200].decode(errors='replace')}"
    return ask.check(body)
