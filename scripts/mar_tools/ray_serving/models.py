"""The models that an ingress serves: which versions, and the default one; a new version counts once it has answered."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mar_tools.ray_serving.refusals import refuse_model, refuse_unready, refuse_version

DEPLOYMENT = "Model"  # the one of each model's application
INGRESS = "Ingress"  # the one of the application that HTTP reaches
READY_S = 5.0  # for a replica to say that it is there
PAUSE_S = 0.5


@dataclass(frozen=True)
class Served:
    """A version, and what its application is asked through."""

    model: str
    version: str
    application: str
    handle: Any


@dataclass
class Versions:
    """Of one model. proven: those whose replicas have loaded, and gave their golden predictions."""

    default: str = ""
    proven: dict[str, Served] = field(default_factory=dict)


class ModelTable:
    """find_handle: an application's name -> its handle; raises where there is no such application yet."""

    def __init__(self, find_handle: Callable[[str], Any]) -> None:
        self._find_handle = find_handle
        self._models: dict[str, Versions] = {}
        self._wanted: Mapping[str, Any] = {}

    @property
    def is_complete(self) -> bool:
        """Return whether every version that is wanted is served, and the wanted defaults are the defaults."""
        return bool(self._wanted) and all(
            self._known(model).default == wanted["default"]
            and self._known(model).proven.keys() == wanted["versions"].keys()
            for model, wanted in self._wanted.items()
        )

    async def follow(self, wanted: Mapping[str, Any]) -> None:
        """Serve these models from now on: {model: {"default": version, "versions": {version: application}}}.

        Returns when all have answered. Until a default has, the one before goes on, and so do versions that are no
        longer wanted. A later call replaces this one.
        """
        self._wanted = wanted
        while self._wanted is wanted and not self.is_complete:
            await asyncio.gather(*(self._prove(model, version) for model, version in self._list_unproven()))
            if self._wanted is wanted:
                self._switch()
                await asyncio.sleep(0 if self.is_complete else PAUSE_S)

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

    def _list_unproven(self) -> list[tuple[str, str]]:
        return [
            (model, version)
            for model, wanted in self._wanted.items()
            for version, application in wanted["versions"].items()
            if version not in (proven := self._known(model).proven) or proven[version].application != application
        ]

    async def _prove(self, model: str, version: str) -> None:
        """Serve a version whose replica answers: it has loaded, and given its golden prediction."""
        application = self._wanted[model]["versions"][version]
        try:
            handle = await asyncio.to_thread(self._find_handle, application)
            await asyncio.wait_for(ask_ready(handle), READY_S)
        except Exception:  # it is not there yet, or has failed to load: the command and `serve status` say why
            return
        self._models.setdefault(model, Versions()).proven[version] = Served(model, version, application, handle)

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


async def ask_ready(handle: Any) -> bool:
    """Return True when a replica answers. Raises what Ray raises where none can."""
    return bool(await handle.is_ready.remote())


async def is_ready(served: Served) -> bool:
    """Return whether a replica of it answers now."""
    try:
        return await asyncio.wait_for(ask_ready(served.handle), READY_S)
    except Exception:  # whatever Ray says of it, it does not answer
        return False
