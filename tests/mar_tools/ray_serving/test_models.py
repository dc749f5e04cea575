"""A version is served when it has a replica, and the default one before it until then."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mar_tools.ray_serving.channel import Listening, ReplicaServer
from mar_tools.ray_serving.exchange import Answer, Request
from mar_tools.ray_serving.models import ModelTable
from mar_tools.ray_serving.refusals import RefusalError, refuse_unready

OF_ONE = {"room": 2, "queue": 2, "on_demand": False}


def want(default: str, *versions: str) -> dict[str, Any]:
    settings = {version: {"application": f"digits-{version}", **OF_ONE} for version in versions}
    return {"digits": {"default": default, "versions": settings}}


class Cluster:
    """Applications with a replica each that listens; none of it is Ray's."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)
        self.loads: list[str] = []
        self._servers: dict[str, ReplicaServer] = {}

    async def find_replicas(self, application: str) -> list[Listening]:
        return [await self.load(application)] if application in self.names else []

    async def load(self, application: str) -> Listening:
        if application not in self.names:
            raise refuse_unready(f"{application} is broken")
        self.loads.append(application)
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


def test_what_is_on_demand_is_loaded_once_to_prove_it() -> None:
    async def check(table: ModelTable, cluster: Cluster) -> None:
        await follow(table, on_demand("1.0"))
        await table.update()
        assert (table.is_complete, cluster.loads) == (True, ["digits-1.0"])
        assert table.find("digits").pool.card == {"name": "digits-1.0"}

    run(check, "digits-1.0")


def test_what_cannot_be_loaded_on_demand_says_why_and_is_not_tried_again_until_it_is_wanted_again() -> None:
    async def check(table: ModelTable, cluster: Cluster) -> None:
        await follow(table, on_demand("1.0"))
        cluster.names.add("digits-1.0")
        await table.update()
        assert (table.problems, cluster.loads) == ({"digits-1.0": "digits-1.0 is broken"}, [])
        await follow(table, on_demand("1.0"))
        assert (table.is_complete, table.problems) == (True, {})

    run(check)
