"""Requests of a replica are handled in batches, one at a time, each within the delay that is set."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from mar_tools.ray_serving.batching import Batcher
from mar_tools.ray_serving.exchange import Answer, Request

NEVER_S = 3600.0


class Model:
    """Notes its batches, and answers each request with its own name; `open` lets it begin."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.open = threading.Event()

    def handle(self, requests: Sequence[Request]) -> list[Answer]:
        assert self.open.wait(30)
        self.batches.append([request.row["body"] for request in requests])
        if b"bad" in self.batches[-1]:
            raise MemoryError
        return [Answer(200, "application/json", {}, request.row["body"]) for request in requests]


def run(check: Callable[[Batcher, Model], Awaitable[None]], delay_s: float = NEVER_S) -> None:
    async def do() -> None:
        model = Model()
        with ThreadPoolExecutor(1) as thread:
            await check(Batcher(model.handle, thread, 3, delay_s), model)

    asyncio.run(do())


def ask(batcher: Batcher, *names: bytes) -> "list[asyncio.Future[Answer]]":
    return [batcher.answer(Request({"body": name}, {})) for name in names]


def test_a_full_batch_begins_at_once_and_each_gets_its_own_answer() -> None:
    async def check(batcher: Batcher, model: Model) -> None:
        model.open.set()
        answers = await asyncio.gather(*ask(batcher, b"a", b"b", b"c"))
        assert [answer.body for answer in answers] == [b"a", b"b", b"c"]
        assert model.batches == [[b"a", b"b", b"c"]]

    run(check)


def test_a_batch_that_is_not_full_begins_after_the_delay() -> None:
    async def check(batcher: Batcher, model: Model) -> None:
        model.open.set()
        assert [answer.body for answer in await asyncio.gather(*ask(batcher, b"a", b"b"))] == [b"a", b"b"]
        assert model.batches == [[b"a", b"b"]]

    run(check, delay_s=0.001)


def test_what_comes_while_a_batch_runs_is_put_together() -> None:
    async def check(batcher: Batcher, model: Model) -> None:
        answers = ask(batcher, b"a", b"b", b"c", b"d", b"e", b"f", b"g")
        model.open.set()
        await asyncio.gather(*answers)
        assert model.batches == [[b"a", b"b", b"c"], [b"d", b"e", b"f"], [b"g"]]

    run(check, delay_s=0.001)


def test_a_batch_that_raises_fails_alone() -> None:
    async def check(batcher: Batcher, model: Model) -> None:
        bad, good = ask(batcher, b"a", b"bad", b"c"), ask(batcher, b"d", b"e", b"f")
        model.open.set()
        for answer in bad:
            with pytest.raises(MemoryError):
                await answer
        assert [(await answer).body for answer in good] == [b"d", b"e", b"f"]

    run(check)


def test_a_client_that_left_does_not_stop_the_others() -> None:
    async def check(batcher: Batcher, model: Model) -> None:
        gone, kept, other = ask(batcher, b"a", b"b", b"c")
        gone.cancel()
        model.open.set()
        assert [(await kept).body, (await other).body] == [b"b", b"c"]

    run(check)
