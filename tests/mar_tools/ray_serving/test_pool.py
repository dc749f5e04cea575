"""An ingress asks the least busy replica, and another where it ends; each request gets one answer or one refusal."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mar_tools.ray_serving.channel import Connection, Listening, ReplicaServer
from mar_tools.ray_serving.exchange import Answer, Request
from mar_tools.ray_serving.pool import ClosedError, ReplicaPool
from mar_tools.ray_serving.refusals import RefusalError, refuse_unready

PICTURE = bytes(range(256)) * 1000  # more than arrives in one piece
ASKED = Request({"body": PICTURE, "top_k": b"3"}, {"Content-Type": "image/png", "body": {"content-type": "image/png"}})
HOST = "127.0.0.1"
TRIES, LONG_S = 2, 30.0


class Server(ReplicaServer):
    """One whose connections can be broken, as the end of a process does."""

    def __init__(self, answer: "Callable[[Request], asyncio.Future[Answer]]") -> None:
        super().__init__(answer)
        self.connections: list[Connection] = []

    def _accept(self) -> Connection:
        self.connections.append(super()._accept())
        return self.connections[-1]


class Replica:
    """One that notes what it is asked and answers when it is told to."""

    def __init__(self) -> None:
        self.server = Server(self._answer)
        self.asked: list[tuple[Request, asyncio.Future[Answer]]] = []

    def _answer(self, request: Request) -> "asyncio.Future[Answer]":
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.asked.append((request, future))
        return future

    async def listen(self) -> Listening:
        return Listening(*await self.server.listen(HOST), {})

    async def wait_for(self, number: int) -> None:
        while len(self.asked) < number:
            await asyncio.sleep(0)

    def answer_all(self, name: str) -> None:
        for _, future in self.asked:
            if not future.done():
                future.set_result(new_answer(name))

    def end(self) -> None:
        for connection in self.server.connections:
            connection.close()


def new_answer(name: str) -> Answer:
    return Answer(200, "application/json", {"X-Worker": name}, name.encode())


def run(check: Callable[[ReplicaPool, Replica, Replica], Awaitable[None]], room: int = 2, queue: int = 2) -> None:
    """Run a check with two replicas that a pool is connected to."""

    async def do() -> None:
        first, second = Replica(), Replica()
        pool = ReplicaPool(room, queue)
        for replica in (first, second):
            await pool.add([await replica.listen()])
        await check(pool, first, second)

    asyncio.run(do())


def ask(pool: ReplicaPool, tries: int = TRIES, timeout_s: float = LONG_S) -> "asyncio.Task[Answer]":
    return asyncio.ensure_future(pool.ask(ASKED, tries, timeout_s))


async def refusal_of(task: "asyncio.Task[Answer]") -> tuple[int, str]:
    with pytest.raises(RefusalError) as refused:
        await task
    return refused.value.status, refused.value.type


async def answer_until_done(tasks: "list[asyncio.Task[Answer]]", *replicas: Replica) -> None:
    while not all(task.done() for task in tasks):
        for replica in replicas:
            replica.answer_all("x")
        await asyncio.sleep(0)
    assert {task.result().status for task in tasks} == {200}


def test_what_is_asked_and_answered_arrives_as_it_was() -> None:
    async def check(pool: ReplicaPool, first: Replica, _: Replica) -> None:
        task = ask(pool)
        await first.wait_for(1)
        assert first.asked[0][0] == ASKED
        first.answer_all("first")
        assert await task == new_answer("first")

    run(check)


def test_the_least_busy_one_is_asked_and_no_more_than_have_room() -> None:
    async def check(pool: ReplicaPool, first: Replica, second: Replica) -> None:
        tasks = [ask(pool) for _ in range(6)]
        await first.wait_for(2)
        await second.wait_for(2)
        second.answer_all("second")
        await second.wait_for(4)
        assert (len(first.asked), len(second.asked)) == (2, 4)
        first.answer_all("first")
        second.answer_all("second")
        assert [(await task).body for task in tasks].count(b"second") == 4

    run(check)


def test_what_does_not_fit_the_queue_is_refused_at_once() -> None:
    async def check(pool: ReplicaPool, first: Replica, second: Replica) -> None:
        kept = [ask(pool) for _ in range(6)]
        assert await refusal_of(ask(pool)) == (503, "ServerBusyError")
        await answer_until_done(kept, first, second)

    run(check)


def test_a_request_that_loses_its_replica_is_asked_once_more() -> None:
    async def check(pool: ReplicaPool, first: Replica, second: Replica) -> None:
        task = ask(pool)
        await first.wait_for(1)
        first.end()
        await second.wait_for(1)
        second.answer_all("second")
        assert await task == new_answer("second")

    run(check)


@pytest.mark.parametrize("tries", [1, 2])
def test_what_ends_as_many_replicas_as_it_has_tries_is_answered_with_an_error(tries: int) -> None:
    async def check(pool: ReplicaPool, *replicas: Replica) -> None:
        task = ask(pool, tries)
        for replica in replicas[:tries]:
            await replica.wait_for(1)
            replica.end()
        assert await refusal_of(task) == (500, "InferenceError")
        assert sum(len(replica.asked) for replica in replicas) == tries

    run(check)


def test_a_batch_that_fails_is_told_as_a_lost_one() -> None:
    async def check(pool: ReplicaPool, first: Replica, _: Replica) -> None:
        task = ask(pool, tries=1)
        await first.wait_for(1)
        first.asked[0][1].set_exception(MemoryError())
        assert await refusal_of(task) == (500, "InferenceError")
        assert pool.is_ready

    run(check)


def test_a_replica_that_drains_answers_what_it_has_and_leaves_the_rest_to_others() -> None:
    async def check(pool: ReplicaPool, first: Replica, second: Replica) -> None:
        early = ask(pool, tries=1)
        await first.wait_for(1)
        draining = asyncio.ensure_future(first.server.drain())
        late = [ask(pool, tries=1) for _ in range(2)]
        await second.wait_for(2)
        assert not draining.done()
        first.answer_all("first")
        second.answer_all("second")
        assert (await early).body == b"first"
        assert {(await task).body for task in late} == {b"second"}
        await draining

    run(check)


def test_no_answer_in_time_is_504_and_no_replica_is_503() -> None:
    async def check(pool: ReplicaPool, first: Replica, second: Replica) -> None:
        assert await refusal_of(ask(pool, timeout_s=0.01)) == (504, "UpstreamTimeoutError")
        for replica in (first, second):
            replica.end()
        while pool.is_ready:
            await asyncio.sleep(0)
        assert await refusal_of(ask(pool, timeout_s=0.01)) == (503, "UnavailableError")

    run(check)


def test_clients_that_leave_make_room_for_others() -> None:
    async def check(pool: ReplicaPool, first: Replica, second: Replica) -> None:
        waiting = [ask(pool) for _ in range(6)]
        await second.wait_for(2)
        for task in waiting[4:]:  # they stand in the queue, and fill it
            task.cancel()
        await asyncio.sleep(0)
        again = [ask(pool) for _ in range(2)]
        await answer_until_done([*waiting[:4], *again], first, second)

    run(check)


def test_late_answers_make_room_for_what_waits() -> None:
    async def check(pool: ReplicaPool, first: Replica, second: Replica) -> None:
        late = [ask(pool, timeout_s=0.01) for _ in range(4)]
        await second.wait_for(2)
        assert {await refusal_of(task) for task in late} == {(504, "UpstreamTimeoutError")}
        waiting = ask(pool)
        await asyncio.sleep(0)
        assert sum(len(replica.asked) for replica in (first, second)) == 4
        await answer_until_done([waiting], first, second)

    run(check)


def test_a_closed_pool_answers_what_replicas_have_and_sends_away_what_waits() -> None:
    async def check(pool: ReplicaPool, first: Replica, second: Replica) -> None:
        asked, waiting = [ask(pool, tries=1) for _ in range(4)], ask(pool)
        await second.wait_for(2)
        pool.close()
        for task in (waiting, ask(pool)):
            with pytest.raises(ClosedError):
                await task
        assert pool.is_ready
        await answer_until_done(asked, first, second)
        while pool.is_ready:
            await asyncio.sleep(0)

    run(check)


def test_an_answer_that_cannot_be_sent_is_told_as_a_lost_one() -> None:
    async def check(pool: ReplicaPool, first: Replica, _: Replica) -> None:
        task = ask(pool, tries=1)
        await first.wait_for(1)
        first.asked[0][1].set_result(Answer(200, "application/json", {"X-Score": object()}, b""))  # type: ignore[dict-item]
        assert await refusal_of(task) == (500, "InferenceError")
        assert first.server.under_way == 0

    run(check)


def test_a_connection_without_the_token_is_closed_and_nothing_is_asked() -> None:
    async def check(pool: ReplicaPool, first: Replica, second: Replica) -> None:
        host, port, _ = await first.server.listen(HOST)
        stranger = ReplicaPool(2, 2)
        await stranger.add([Listening(host, port, "wrong", {})])
        assert await refusal_of(ask(stranger, tries=1)) == (500, "InferenceError")
        assert first.asked == []

    run(check)


def test_an_archive_on_demand_is_loaded_once_for_all_that_ask_and_again_when_it_was_put_away() -> None:
    async def do() -> None:
        loads: list[Replica] = []

        async def load() -> Listening:
            loads.append(Replica())
            return await loads[-1].listen()

        pool = ReplicaPool(4, 4, load)
        for number in (1, 2):
            tasks = [ask(pool) for _ in range(4)]
            while len(loads) < number:
                await asyncio.sleep(0)
            await loads[-1].wait_for(4)
            await answer_until_done(tasks, loads[-1])
            assert len(loads) == number
            await loads[-1].server.drain()
            if number == 2:  # the process may end before it is asked again, or after
                loads[-1].end()
        assert {(await task).status for task in await ask_and_answer(pool, loads)} == {200}
        assert len(loads) == 3

    asyncio.run(do())


def test_those_that_wait_for_an_archive_on_demand_have_it_loaded_again_when_it_ends() -> None:
    async def do() -> None:
        loads: list[Replica] = []

        async def load() -> Listening:
            loads.append(Replica())
            return await loads[-1].listen()

        pool = ReplicaPool(1, 4, load)
        tasks = [ask(pool) for _ in range(4)]
        while not loads:
            await asyncio.sleep(0)
        await loads[0].wait_for(1)
        loads[0].end()
        while len(loads) < 2:
            await asyncio.sleep(0)
        await answer_until_done(tasks, loads[1])

    asyncio.run(do())


async def ask_and_answer(pool: ReplicaPool, loads: list[Replica]) -> "list[asyncio.Task[Answer]]":
    tasks = [ask(pool)]
    while not tasks[0].done():
        loads[-1].answer_all("x")
        await asyncio.sleep(0)
    return tasks


def test_what_cannot_be_loaded_is_told_to_all_that_ask() -> None:
    async def do() -> None:
        async def load() -> Listening:
            raise refuse_unready("it is broken")

        pool = ReplicaPool(4, 4, load)
        for task in [ask(pool), ask(pool)]:
            assert await refusal_of(task) == (503, "UnavailableError")

    asyncio.run(do())
