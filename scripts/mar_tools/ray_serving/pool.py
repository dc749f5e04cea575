"""The replicas of one application, as an ingress asks them: the least busy one, and a queue before all of them."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any

from mar_tools.ray_serving.channel import Address, AskAnotherError, Channel, Listening, LostError, fail
from mar_tools.ray_serving.exchange import Answer, Request
from mar_tools.ray_serving.refusals import refuse_busy, refuse_late, refuse_lost, refuse_unready

logger = logging.getLogger("ray.serve")
CONNECT_S = 5.0
LOAD_TRIES, PAUSE_S = 20, 0.1
QUEUE_IS_FULL = "as many requests of this model wait as its queue takes"
NONE_ANSWERS = "no process of the model answers; the log of Serve says why"
ENDED = "the model's process ended, or failed, while it had this request"


class ClosedError(Exception):
    """The replicas are not asked any more: the model table says which ones are."""


class ReplicaPool:
    """room: requests that a replica has at once. queue: how many wait here for one, before others are refused.

    load: for an archive that is loaded on demand; it raises RefusalError. card: the model card, once one is there.
    """

    def __init__(self, room: int, queue: int, load: "Callable[[], Awaitable[Listening]] | None" = None) -> None:
        self._room, self._queue, self._load = room, queue, load
        self._loading: asyncio.Task[None] | None = None
        self.card: dict[str, Any] = {}
        self._channels: dict[Address, Channel] = {}
        self._waiting: deque[tuple[Request, asyncio.Future[Any]]] = deque()
        self._is_closed = False

    @property
    def is_ready(self) -> bool:
        return any(channel.is_open for channel in self._channels.values())

    @property
    def is_on_demand(self) -> bool:
        return self._load is not None

    @property
    def _is_asleep(self) -> bool:
        return self._load is not None and all(channel.is_ending for channel in self._channels.values())

    async def add(self, listening: Collection[Listening]) -> None:
        """Ask these replicas, too, until each ends its connection. One that is not there is tried at the next call."""
        for each in listening:
            self.card = each.card
            if each.address not in self._channels:
                await self._connect(each.address)

    async def wake(self) -> None:
        """Have an archive on demand loaded where it is not, once for all that ask. Raises RefusalError."""
        if not self._is_asleep:
            return
        assert self._load is not None
        if self._loading is None or self._loading.done():
            self._loading = asyncio.ensure_future(self._add_loaded(self._load))
        await asyncio.shield(self._loading)

    async def _add_loaded(self, load: "Callable[[], Awaitable[Listening]]") -> None:
        """Raises RefusalError."""
        for _ in range(LOAD_TRIES):
            await self.add([await load()])
            if self.is_ready:
                return
            await asyncio.sleep(PAUSE_S)  # it ended just now, and whoever loads it is about to see that
        raise refuse_unready(NONE_ANSWERS)

    def close(self) -> None:
        """Ask these replicas nothing more. What they have is answered; what waits raises ClosedError."""
        self._is_closed = True
        self._send_away(ClosedError())
        for channel in [*self._channels.values()]:
            self._use(channel)

    async def ask(self, request: Request, tries: int, timeout_s: float) -> Answer:
        """Ask a replica, and another where it ends with the request: what ends a replica must not end all.

        Raises RefusalError, and ClosedError where another pool is to be asked.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        is_new = True
        while True:
            if self._is_closed:
                raise ClosedError
            try:
                while self._is_asleep:
                    await asyncio.wait_for(self.wake(), deadline - asyncio.get_running_loop().time())
                answering = await self._send(request, deadline, is_new)
                answer: Answer = await before(deadline, answering)
                return answer
            except AskAnotherError:
                pass
            except LostError:
                tries -= 1
                if not tries:
                    raise refuse_lost(ENDED) from None
            except (TimeoutError, asyncio.TimeoutError):
                raise (refuse_late(timeout_s) if self.is_ready else refuse_unready(NONE_ANSWERS)) from None
            is_new = False

    async def _connect(self, address: Address) -> None:
        make = partial(Channel, address.token, self._use, partial(self._lose, address))
        connecting = asyncio.get_running_loop().create_connection(make, address.host, address.port)
        try:
            _, self._channels[address] = await asyncio.wait_for(connecting, CONNECT_S)
        except (OSError, asyncio.TimeoutError, TimeoutError) as error:
            logger.warning("no connection to the replica at %s:%d: %r", address.host, address.port, error)
        else:
            self._use(self._channels[address])

    def _use(self, channel: Channel) -> None:
        """Give a replica that may have room what waits, or let it go where it is not needed any more."""
        if self._is_closed and not channel.under_way:
            channel.close()
        self._hand_on()

    def _lose(self, address: Address, channel: Channel) -> None:
        if self._channels.get(address) is channel:
            del self._channels[address]
        if self._is_asleep:  # those that wait are to have it loaded again
            self._send_away(AskAnotherError())

    def _send_away(self, error: Exception) -> None:
        for _, place in self._waiting:
            fail(place, error)
        self._waiting.clear()

    def _find_free(self) -> Channel | None:
        """Return the replica with the fewest requests, None where none has room."""
        able = (each for each in self._channels.values() if each.is_open and not each.is_ending)
        best = min(able, key=lambda channel: channel.under_way, default=None)
        return best if best is not None and best.under_way < self._room else None

    async def _send(self, request: Request, deadline: float, is_new: bool) -> "asyncio.Future[Answer]":
        """Return the answer to come of a replica, when one has room. is_new: whether a full queue refuses it.

        Raises RefusalError and TimeoutError.
        """
        channel = None if self._waiting else self._find_free()
        if channel is not None:
            return channel.ask(request)
        if is_new and len(self._waiting) >= self._queue:
            raise refuse_busy(QUEUE_IS_FULL)
        place = (request, asyncio.get_running_loop().create_future())
        self._waiting.append(place)
        try:
            answering: asyncio.Future[Answer] = await before(deadline, place[1])
        except BaseException:  # it is late, or its client has left
            if place in self._waiting:
                self._waiting.remove(place)
            raise
        return answering

    def _hand_on(self) -> None:
        """Send what waits to the replicas that have room."""
        while self._waiting and (channel := self._find_free()) is not None:
            request, place = self._waiting.popleft()
            if not place.done():
                place.set_result(channel.ask(request))


async def before(deadline: float, future: "asyncio.Future[Any]") -> Any:
    """Return what comes before a time of the loop. Raises TimeoutError; asyncio.wait_for would make a task of it."""
    timer = asyncio.get_running_loop().call_at(deadline, fail, future, TimeoutError())
    try:
        return await future
    finally:
        timer.cancel()
