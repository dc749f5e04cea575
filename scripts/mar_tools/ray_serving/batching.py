"""Requests of one replica, put together: up to a batch at a time goes to the thread of its model."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from mar_tools.ray_serving.exchange import Answer, Request

# For an answer, and the next request of its client, to pass the ingress: so batches are about as full as TorchServe's.
RETURN_S = 0.001


class Batcher:
    """handle: a batch of requests -> their answers, run in `thread`. size: of the largest batch.

    delay_s: how long a batch waits for more requests, from its first one and the end of the batch before it, as
    TorchServe counts: the clients of that one are about to ask again. One batch runs at a time.
    """

    def __init__(
        self, handle: Callable[[Sequence[Request]], list[Answer]], thread: Executor, size: int, delay_s: float
    ) -> None:
        self._handle, self._thread, self._size, self._delay_s = handle, thread, size, delay_s
        self._waiting: deque[tuple[float, Request, asyncio.Future[Answer]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._runs = False
        self._ended = 0.0

    def answer(self, request: Request) -> "asyncio.Future[Answer]":
        """Return the answer to come; it raises what handling its batch raised."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((loop.time(), request, future))
        self._plan(loop)
        return future

    def _plan(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start a batch when it is full, or its first request has waited long enough."""
        if self._runs or not self._waiting:
            return
        if len(self._waiting) >= self._size:
            self._start(loop)
        elif self._timer is None:
            self._timer = loop.call_at(max(self._waiting[0][0], self._ended) + self._delay_s, self._start, loop)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch = [self._waiting.popleft() for _ in range(min(self._size, len(self._waiting)))]
        self._runs = True
        futures = [future for _, _, future in batch]
        running = loop.run_in_executor(self._thread, self._handle, [request for _, request, _ in batch])
        running.add_done_callback(lambda done: self._finish(loop, futures, done))

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        futures: "Sequence[asyncio.Future[Answer]]",
        done: "asyncio.Future[list[Answer]]",
    ) -> None:
        error = done.exception()
        for number, future in enumerate(futures):
            if future.done():  # nobody waits for it any more
                continue
            if error is None:
                future.set_result(done.result()[number])
            else:
                future.set_exception(error)
        self._runs, self._ended = False, loop.time() + RETURN_S
        self._plan(loop)
