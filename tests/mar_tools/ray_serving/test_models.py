"""A version is served when it has a replica, and the default one before it until then."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mar_tools.ray_serving import models
from mar_tools.ray_serving.channel import Listening, ReplicaServer
from mar_tools.ray_serving.exchange import Answer, Request
from mar_tools.ray_serving.models import ModelTable
from mar_tools.ray_serving.pool import ClosedError
from mar_tools.ray_serving.refusals import RefusalError, refuse_broken, refuse_unready

OF_ONE = {"room": 2, "queue": 2, "on_demand": False}


def want(default: str, *versions: str) -> dict[str, Any]:
    settings = {version: {"application": f"digits-{version}", **OF_ONE} for version in versions}
    return {"digits": {"default": default, "versions": settings}}


class Cluster:
    """Applications with a replica each that listens; none of it is Ray's."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)
        self.loads: list[str] = []
        self.busy: set[str] = set()
        self.gate: asyncio.Event | None = None
        self._servers: dict[str, ReplicaServer] = {}

    async def find_replicas(self, application: str) -> list[Listening]:
        return [await self._listen(application)] if application in self.names else []

    async def load(self, application: str) -> Listening:
        if self.gate is not None:
            await self.gate.wait()
        if application in self.busy:
            raise refuse_unready(f"{application} has no room")
        if application not in self.names:
            raise refuse_broken(f"{application} is broken")
        self.loads.append(application)
        return await self._listen(application)

    async def _listen(self, application: str) -> Listening:
        server = self._servers.setdefault(application, ReplicaServer(self._answer))
        return Listening(*await server.listen("127.0.0.1"), {"name": application})

    def _answer(self, request: Request) -> "asyncio.Future[Answer]":
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        future.set_result(Answer(200, "application/json", {}, b"{}"))
        return future


def run(check: Callable[[ModelTable, Cluster], Awaitable[None]], *names: str) -> None:
    async def do() -> None:
        cluster = Cluster(*names)
        await check(ModelTable(cluster.find_replicas, cluster.load), cluster)

    asyncio.run(do())


async def follow(table: ModelTable, wanted: dict[str, Any]) -> None:
    table.want(wanted)
    await table.update()


def test_a_version_without_a_replica_never_becomes_the_default() -> None:
    async def check(table: ModelTable, _: Cluster) -> None:
        await follow(table, want("1.0", "1.0"))
        assert table.is_complete
        await follow(table, want("2.0", "2.0"))
        assert not table.is_complete
        assert table.find("digits").version == "1.0"

    run(check, "digits-1.0")


def test_it_becomes_the_default_when_it_has_one_and_the_one_before_goes() -> None:
    async def check(table: ModelTable, cluster: Cluster) -> None:
        await follow(table, want("1.0", "1.0"))
        await follow(table, want("2.0", "2.0"))
        cluster.names.add("digits-2.0")
        await table.update()
        assert table.is_complete
        assert [each.version for each in table.versions("digits")] == ["2.0"]

    run(check, "digits-1.0")


def test_both_versions_answer_by_their_names() -> None:
    async def check(table: ModelTable, _: Cluster) -> None:
        await follow(table, want("2.0", "1.0", "2.0"))
        assert [table.find("digits", version).version for version in (None, "1.0", "2.0")] == ["2.0", "1.0", "2.0"]

    run(check, "digits-1.0", "digits-2.0")


def test_what_is_unknown_is_404_and_what_starts_is_503() -> None:
    async def check(table: ModelTable, _: Cluster) -> None:
        await follow(table, want("1.0", "1.0", "2.0"))
        for model, version, status in (("flowers", None, 404), ("digits", "9.9", 404), ("digits", "2.0", 503)):
            with pytest.raises(RefusalError) as refused:
                table.find(model, version)
            assert refused.value.status == status

    run(check, "digits-1.0")


def test_a_model_that_is_not_wanted_any_more_is_unknown_and_its_connections_are_closed() -> None:
    async def check(table: ModelTable, _: Cluster) -> None:
        await follow(table, want("1.0", "1.0"))
        pool = table.find("digits").pool
        versions = {"1.0": {"application": "others-1.0", **OF_ONE}}
        await follow(table, {"others": {"default": "1.0", "versions": versions}})
        assert table.names() == ["others"]
        while pool.is_ready:
            await asyncio.sleep(0)

    run(check, "digits-1.0", "others-1.0")


def on_demand(*versions: str) -> dict[str, Any]:
    wanted = want(versions[0], *versions)
    for settings in wanted["digits"]["versions"].values():
        settings["on_demand"] = True
    return wanted


async def update_until(table: ModelTable, is_met: Callable[[], bool]) -> None:
    while not is_met():
        await table.update()
        await asyncio.sleep(0)


def test_what_is_on_demand_is_loaded_once_to_prove_it() -> None:
    async def check(table: ModelTable, cluster: Cluster) -> None:
        table.want(on_demand("1.0"))
        await update_until(table, lambda: table.is_complete)
        await table.update()
        assert cluster.loads == ["digits-1.0"]
        assert table.find("digits").pool.card == {"name": "digits-1.0"}

    run(check, "digits-1.0")


def test_what_cannot_be_loaded_on_demand_says_why_until_it_is_wanted_again() -> None:
    async def check(table: ModelTable, cluster: Cluster) -> None:
        table.want(on_demand("1.0"))
        await update_until(table, lambda: bool(table.problems))
        cluster.names.add("digits-1.0")
        for _ in range(3):
            await table.update()
        assert (table.problems, cluster.loads) == ({"digits-1.0": "digits-1.0 is broken"}, [])
        table.want(on_demand("1.0"))
        await update_until(table, lambda: table.is_complete)
        assert table.problems == {}

    run(check)


def test_what_was_broken_is_tried_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "AGAIN_S", 0)

    async def check(table: ModelTable, cluster: Cluster) -> None:
        table.want(on_demand("1.0"))
        await update_until(table, lambda: bool(table.problems))
        cluster.names.add("digits-1.0")
        await update_until(table, lambda: table.is_complete)
        assert table.problems == {}

    run(check)


def test_what_has_no_room_now_is_no_problem_and_is_loaded_later() -> None:
    async def check(table: ModelTable, cluster: Cluster) -> None:
        cluster.busy.add("digits-1.0")
        table.want(on_demand("1.0"))
        for _ in range(5):
            await table.update()
            await asyncio.sleep(0)
        assert (table.is_complete, table.problems) == (False, {})
        cluster.busy.clear()
        await update_until(table, lambda: table.is_complete)

    run(check, "digits-1.0")


def test_replicas_are_found_while_an_archive_on_demand_takes_long_to_load() -> None:
    async def check(table: ModelTable, cluster: Cluster) -> None:
        cluster.gate = asyncio.Event()
        versions = {"1.0": {"application": "others-1.0", **OF_ONE}}
        await follow(table, {**on_demand("1.0"), "others": {"default": "1.0", "versions": versions}})
        assert table.names() == ["others"]
        cluster.gate.set()
        await update_until(table, lambda: table.is_complete)

    run(check, "digits-1.0", "others-1.0")


@pytest.mark.parametrize("before_on_demand", [False, True])
def test_a_version_that_is_on_demand_from_now_on_or_no_more_is_asked_the_other_way(before_on_demand: bool) -> None:
    async def check(table: ModelTable, _: Cluster) -> None:
        ways = [want("1.0", "1.0"), on_demand("1.0")]
        first, second = reversed(ways) if before_on_demand else ways
        table.want(first)
        await update_until(table, lambda: table.is_complete)
        old = table.find("digits").pool
        table.want(second)
        assert not table.is_complete
        assert table.find("digits").pool is old
        await update_until(table, lambda: table.is_complete)
        assert table.find("digits").pool.is_on_demand is not before_on_demand
        with pytest.raises(ClosedError):
            await old.ask(Request({}, {}), 1, 1.0)

    run(check, "digits-1.0")


def test_what_fails_once_is_no_end_of_following(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "PAUSE_S", 0)

    async def check(table: ModelTable, _: Cluster) -> None:
        following = asyncio.ensure_future(table.follow())
        table.want({"digits": {"default": "1.0", "versions": {"1.0": {"not": "settings"}}}})
        await asyncio.sleep(0.01)
        table.want(want("1.0", "1.0"))
        while not table.is_complete:
            await asyncio.sleep(0)
        following.cancel()

    run(check, "digits-1.0")
