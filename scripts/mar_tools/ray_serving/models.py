"""The models that an ingress serves: which versions, and the default one; a new version counts once it has answered."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from mar_tools.ray_serving.channel import Listening
from mar_tools.ray_serving.pool import ReplicaPool
from mar_tools.ray_serving.refusals import (
    BrokenArchiveError,
    RefusalError,
    refuse_model,
    refuse_unready,
    refuse_version,
)

logger = logging.getLogger("ray.serve")
PAUSE_S = 0.5
AGAIN_S = 60.0  # until what could not be loaded on demand is tried again: its process may have been killed


class Way(NamedTuple):
    """How an application is asked: room and queue as in ReplicaPool. What changes here gets another pool."""

    application: str
    room: int
    queue: int
    on_demand: bool


@dataclass(frozen=True)
class Served:
    """A version, and the replicas that it is asked through."""

    model: str
    version: str
    application: str
    pool: ReplicaPool


@dataclass
class Versions:
    """Of one model. proven: those whose replicas have loaded, and gave their golden predictions."""

    default: str = ""
    proven: dict[str, Served] = field(default_factory=dict)


class ModelTable:
    """find_replicas: an application's name -> its replicas, empty where there are none yet.

    load: an application's name -> the one that has loaded its archive on demand. It raises BrokenArchiveError where
    it cannot be loaded, and another RefusalError where it cannot be loaded now.
    """

    def __init__(
        self,
        find_replicas: Callable[[str], Awaitable[Collection[Listening]]],
        load: Callable[[str], Awaitable[Listening]],
    ) -> None:
        self._find_replicas, self._load = find_replicas, load
        self.problems: dict[str, str] = {}  # of archives that could not be loaded on demand
        self._models: dict[str, Versions] = {}
        self._pools: dict[Way, ReplicaPool] = {}
        self._proving: dict[Way, asyncio.Task[None]] = {}
        self._wanted: Mapping[str, Any] = {}

    @property
    def is_complete(self) -> bool:
        """Return whether every version that is wanted is served, and the wanted defaults are the defaults."""
        return bool(self._wanted) and all(
            self._known(model).default == wanted["default"]
            and self._known(model).proven.keys() == wanted["versions"].keys()
            and all(
                self._known(model).proven[version].pool is self._pools.get(Way(**settings))
                for version, settings in wanted["versions"].items()
            )
            for model, wanted in self._wanted.items()
        )

    def want(self, wanted: Mapping[str, Any]) -> None:
        """Serve these models from now on: {model: {"default": version, "versions": {version: settings}}}.

        settings: the fields of its Way. Until a default has answered, the one before goes on, and so do versions that
        are no longer wanted.
        """
        self._wanted = wanted
        self.problems = {}
        for proving in self._proving.values():
            proving.cancel()
        self._proving = {}

    async def follow(self) -> None:
        """Keep up with the replicas of what is wanted, and of what is served, for ever."""
        while True:
            try:
                await self.update()
            except Exception:
                logger.exception("the ingress could not look for replicas; it tries again")
            await asyncio.sleep(PAUSE_S)

    async def update(self) -> None:
        """Look for replicas once, and take over what they make possible."""
        for way in self._ways():
            if way not in self._pools:
                load = partial(self._load, way.application) if way.on_demand else None
                self._pools[way] = ReplicaPool(way.room, way.queue, load)
        await asyncio.gather(*(self._look(way) for way in [*self._pools]))
        self._prove()
        self._switch()

    def find(self, model: str, version: str | None = None) -> Served:
        """Return the version that is asked for, else the default. Raises RefusalError."""
        found = self._known(model)
        if not found.proven or (version is None and found.default not in found.proven):
            raise refuse_unready(f"{model} is starting") if model in self._wanted else refuse_model(model)
        served = found.proven.get(version or found.default)
        if served is None:
            assert version is not None
            starts = version in self._wanted.get(model, {}).get("versions", {})
            raise refuse_unready(f"{model} {version} is starting") if starts else refuse_version(model, version)
        return served

    def only_model(self) -> str | None:
        """Return the one model's name, None where there is none or several."""
        return next(iter(self._models)) if len(self._models) == 1 else None

    def names(self) -> list[str]:
        return sorted(model for model, found in self._models.items() if found.proven)

    def versions(self, model: str) -> list[Served]:
        """Return those of a model that are served, the default first. Raises RefusalError."""
        default = self.find(model)
        rest = self._known(model).proven.values()
        return [default, *(served for served in rest if served is not default)]

    def _known(self, model: str) -> Versions:
        return self._models.get(model, Versions())

    def _ways(self) -> list[Way]:
        """Return those of all that is wanted."""
        return [Way(**settings) for wanted in self._wanted.values() for settings in wanted["versions"].values()]

    async def _look(self, way: Way) -> None:
        """Connect to the replicas of an application. What is loaded on demand is loaded once, to prove it.

        That takes long, and nothing else waits for it.
        """
        pool = self._pools[way]
        if not way.on_demand:
            await pool.add(await self._find_replicas(way.application))
        elif not pool.card and (way not in self._proving or self._proving[way].done()):
            self._proving[way] = asyncio.create_task(self._load_once(way.application, pool))

    async def _load_once(self, application: str, pool: ReplicaPool) -> None:
        try:
            await pool.wake()
        except BrokenArchiveError as refusal:
            self.problems[application] = str(refusal)
            await asyncio.sleep(AGAIN_S)
        except RefusalError as refusal:
            logger.warning("%s is not loaded yet: %s", application, refusal)

    def _prove(self) -> None:
        """Serve the versions that have a replica: it has loaded, and given its golden prediction."""
        for model, wanted in self._wanted.items():
            for version, settings in wanted["versions"].items():
                pool = self._pools.get(Way(**settings))
                if pool is not None and pool.card:  # else it has been wanted since this update began
                    self.problems.pop(settings["application"], None)
                    served = Served(model, version, settings["application"], pool)
                    self._models.setdefault(model, Versions()).proven[version] = served

    def _switch(self) -> None:
        """Take over the defaults that have answered. What is not wanted any more goes when its successor is there."""
        for model, wanted in self._wanted.items():
            found = self._known(model)
            if wanted["default"] in found.proven:
                found.default = wanted["default"]
                for version in found.proven.keys() - wanted["versions"].keys():
                    del found.proven[version]
        for model in self._models.keys() - self._wanted.keys():
            del self._models[model]
        served = [served.pool for found in self._models.values() for served in found.proven.values()]
        for way in self._pools.keys() - set(self._ways()):
            if self._pools[way] not in served:
                self._pools.pop(way).close()
