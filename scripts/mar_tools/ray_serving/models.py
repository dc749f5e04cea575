"""The models that an ingress serves: which versions, and the default one; a new version counts once it has answered."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mar_tools.ray_serving.channel import Listening
from mar_tools.ray_serving.pool import ReplicaPool
from mar_tools.ray_serving.refusals import RefusalError, refuse_model, refuse_unready, refuse_version

PAUSE_S = 0.5


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

    load: an application's name -> the one that has loaded its archive on demand; it raises RefusalError.
    """

    def __init__(
        self,
        find_replicas: Callable[[str], Awaitable[Collection[Listening]]],
        load: Callable[[str], Awaitable[Listening]],
    ) -> None:
        self._find_replicas, self._load = find_replicas, load
        self.problems: dict[str, str] = {}  # of archives that could not be loaded on demand
        self._models: dict[str, Versions] = {}
        self._pools: dict[str, ReplicaPool] = {}
        self._wanted: Mapping[str, Any] = {}

    @property
    def is_complete(self) -> bool:
        """Return whether every version that is wanted is served, and the wanted defaults are the defaults."""
        return bool(self._wanted) and all(
            self._known(model).default == wanted["default"]
            and self._known(model).proven.keys() == wanted["versions"].keys()
            for model, wanted in self._wanted.items()
        )

    def want(self, wanted: Mapping[str, Any]) -> None:
        """Serve these models from now on: {model: {"default": version, "versions": {version: settings}}}.

        settings: `application`, `room` and `queue` of its ReplicaPool, and `on_demand`. Until a default has answered,
        the one before goes on, and so do versions that are no longer wanted.
        """
        self._wanted = wanted
        self.problems = {}

    async def follow(self) -> None:
        """Keep up with the replicas of what is wanted, and of what is served, for ever."""
        while True:
            await self.update()
            await asyncio.sleep(PAUSE_S)

    async def update(self) -> None:
        """Look for replicas once, and take over what they make possible."""
        for wanted in self._wanted.values():
            for settings in wanted["versions"].values():
                name = settings["application"]
                if name not in self._pools:
                    load = partial(self._load, name) if settings["on_demand"] else None
                    self._pools[name] = ReplicaPool(settings["room"], settings["queue"], load)
        await asyncio.gather(*(self._look(name) for name in [*self._pools]))
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

    async def _look(self, application: str) -> None:
        """Connect to the replicas of an application. What is loaded on demand is loaded once, to prove it."""
        pool = self._pools[application]
        if not pool.is_on_demand:
            await pool.add(await self._find_replicas(application))
        elif not pool.card and application not in self.problems:
            try:
                await pool.wake()
            except RefusalError as refusal:
                self.problems[application] = str(refusal)

    def _prove(self) -> None:
        """Serve the versions that have a replica: it has loaded, and given its golden prediction."""
        for model, wanted in self._wanted.items():
            for version, settings in wanted["versions"].items():
                pool = self._pools[settings["application"]]
                if pool.card:
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
        kept = {served.application for found in self._models.values() for served in found.proven.values()}
        kept |= {each["application"] for wanted in self._wanted.values() for each in wanted["versions"].values()}
        for application in self._pools.keys() - kept:
            self._pools.pop(application).close()
