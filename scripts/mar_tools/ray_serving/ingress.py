"""The HTTP side: a request of any form to the model that it names, and an answer in our own form whatever happens."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from mar_tools.front.client_keys import ClientKeys
from mar_tools.ray_serving.forms import to_request
from mar_tools.ray_serving.metadata import SERVER, describe_tensors
from mar_tools.ray_serving.models import DEPLOYMENT, ModelTable, Served, is_ready
from mar_tools.ray_serving.refusals import (
    RefusalError,
    refuse_busy,
    refuse_fault,
    refuse_key,
    refuse_late,
    refuse_lost,
    refuse_method,
    refuse_route,
    refuse_size,
    refuse_slow,
    refuse_unready,
    to_answer,
    to_json,
)
from mar_tools.ray_serving.replica import Answer, Request
from mar_tools.ray_serving.routes import OPEN, Route, find_route

logger = logging.getLogger("ray.serve")  # whose log of this replica it is
BODY_TIMEOUT_S = 10.0  # between two pieces of a body, as at the front
MOST_BYTES_UNDER_WAY = 256 << 20  # of bodies of all requests: Ray holds each of them two or three times
QUEUE_IS_FULL = "as many requests of this model wait as its queue takes"
BODIES_ARE_MANY = "the bodies of the requests under way are as many bytes as the server takes at once"


class Ingress:
    """The deployment that HTTP reaches. keys: a file of client keys, as the front has it; None asks for none."""

    def __init__(self, keys: str | None, max_body_bytes: int, answer_timeout_s: float) -> None:
        self._keys = ClientKeys(Path(keys)) if keys else None
        self._max_body_bytes = max_body_bytes
        self._answer_timeout_s = answer_timeout_s
        self._bytes_under_way = 0
        self._table = ModelTable(find_handle)
        self._follower: asyncio.Task[None] | None = None
        self._actions: dict[str, Callable[[Route], Awaitable[Answer]]] = {
            "ping": self._ping,
            "live": self._live,
            "ready": self._ready,
            "server": self._describe_server,
            "metadata": self._describe_tensors,
            "model_ready": self._model_ready,
            "names": self._list_names,
            "models": self._list_models,
            "describe": self._describe,
        }

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Serve these models; Serve calls it at the start, and when a new configuration is deployed."""
        if self._follower is not None:
            self._follower.cancel()
        self._follower = asyncio.create_task(self._table.follow(user_config["models"]))

    async def is_complete(self) -> bool:
        """Return whether all that is wanted is served."""
        return self._table.is_complete

    async def __call__(self, request: Any) -> Any:
        """Answer a request (starlette's) by a response (starlette's), in JSON whatever fails."""
        from starlette.requests import ClientDisconnect
        from starlette.responses import Response

        try:
            answer = await self._answer(request)
        except RefusalError as refusal:
            answer = to_answer(refusal, request.url.path)
        except ClientDisconnect:
            raise  # nobody is there to be answered
        except Exception:
            logger.exception("a request to %s failed in the ingress", request.url.path)
            answer = to_answer(refuse_fault(), request.url.path)
        headers = {**answer.headers, "Content-Type": answer.content_type, "X-Content-Type-Options": "nosniff"}
        return Response(answer.body, answer.status, headers)

    async def _answer(self, request: Any) -> Answer:
        route = find_route(request.url.path)
        if self._keys is not None and (route is None or route.action not in OPEN):
            self._check_key(request.headers)
        if route is None:
            raise refuse_route()
        if request.method not in route.methods.split(", "):
            raise refuse_method(route.methods)
        if route.predicts:
            return await self._predict(request, route)
        return await self._actions[route.action](route)

    def _check_key(self, headers: Any) -> None:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        key = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if not key or self._keys is None or self._keys.find(key) is None:
            raise refuse_key()

    async def _predict(self, request: Any, route: Route) -> Answer:
        model = route.model or request.query_params.get("model_name") or self._table.only_model()
        if model is None:
            raise RefusalError(400, "BadRequestException", "Parameter model_name is required.")
        served = self._table.find(model, route.version)
        held = self._reserve(request.headers)
        try:
            body = await self._read(request)
            asked = to_request(body, request.headers, request.url.query, route.action == "explain")
            return await self._ask(served, asked, tries=1 if route.action == "explain" else 2)
        finally:
            self._bytes_under_way -= held

    def _reserve(self, headers: Any) -> int:
        """Return the bytes that are kept for a body: its length, or the most where it does not say.

        Raises RefusalError.
        """
        length = headers.get("content-length")
        held = int(length) if length is not None and length.isdecimal() else 0
        if "transfer-encoding" in headers:
            held = self._max_body_bytes
        if held > self._max_body_bytes:
            raise refuse_size(self._max_body_bytes)
        if self._bytes_under_way + held > max(MOST_BYTES_UNDER_WAY, self._max_body_bytes):
            raise refuse_busy(BODIES_ARE_MANY)
        self._bytes_under_way += held
        return held

    async def _read(self, request: Any) -> bytes:
        body, pieces = bytearray(), aiter(request.stream())
        while True:
            try:
                body += await asyncio.wait_for(anext(pieces), BODY_TIMEOUT_S)
            except StopAsyncIteration:
                return bytes(body)
            except (asyncio.TimeoutError, TimeoutError):
                raise refuse_slow(BODY_TIMEOUT_S) from None
            if len(body) > self._max_body_bytes:
                raise refuse_size(self._max_body_bytes)

    async def _ask(self, served: Served, request: Request, tries: int) -> Answer:
        """Ask a replica, and once more where it ended with the request: what ends a replica must not end all.

        Raises RefusalError.
        """
        from ray.exceptions import RayError
        from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

        for left in reversed(range(tries)):
            try:
                return await asyncio.wait_for(predict(served.handle, request), self._answer_timeout_s)
            except BackPressureError:
                raise refuse_busy(QUEUE_IS_FULL) from None
            except DeploymentUnavailableError:
                raise refuse_unready(f"{served.model} {served.version} cannot be loaded") from None
            except (asyncio.TimeoutError, TimeoutError):
                raise refuse_late(self._answer_timeout_s) from None
            except RayError:
                if not left:
                    raise refuse_lost("the model's process ended while it had this request") from None
        raise AssertionError("tries is 1 or more")

    async def _ping(self, route: Route) -> Answer:
        return to_json({"status": "Healthy"})

    async def _live(self, route: Route) -> Answer:
        return to_json({"live": True})

    async def _ready(self, route: Route) -> Answer:
        """Say whether all that is wanted is served, and a replica of each version answers."""
        served = [each for model in self._table.names() for each in self._table.versions(model)]
        ready = self._table.is_complete and all(await asyncio.gather(*map(is_ready, served)))
        return to_json({"ready": ready}, 200 if ready else 503)

    async def _model_ready(self, route: Route) -> Answer:
        ready = await is_ready(self._table.find(route.model, route.version))
        return to_json({"name": route.model, "ready": ready}, 200 if ready else 503)

    async def _describe_server(self, route: Route) -> Answer:
        return to_json(SERVER)

    async def _describe_tensors(self, route: Route) -> Answer:
        card = await self._read_card(self._table.find(route.model, route.version))
        versions = [served.version for served in self._table.versions(route.model)]
        return to_json(describe_tensors(route.model, versions, card))

    async def _list_names(self, route: Route) -> Answer:
        return to_json({"models": self._table.names()})

    async def _list_models(self, route: Route) -> Answer:
        """List models as TorchServe's management API does."""
        served = [self._table.find(model) for model in self._table.names()]
        return to_json({"models": [{"modelName": each.model, "modelUrl": each.application} for each in served]})

    async def _describe(self, route: Route) -> Answer:
        """Describe versions with their model cards, in the form of TorchServe's management API."""
        versions = self._table.versions(route.model)
        chosen = versions if route.version == "all" else [self._table.find(route.model, route.version)]
        cards = await asyncio.gather(*map(self._read_card, chosen))
        return to_json(
            [
                {
                    "modelName": served.model,
                    "modelVersion": served.version,
                    "defaultVersion": served is versions[0],
                    "customizedMetadata": card,
                }
                for served, card in zip(chosen, cards, strict=True)
            ]
        )

    async def _read_card(self, served: Served) -> dict[str, Any]:
        from ray.exceptions import RayError

        try:
            card: dict[str, Any] = await asyncio.wait_for(describe(served.handle), self._answer_timeout_s)
        except (asyncio.TimeoutError, TimeoutError, RayError):
            raise refuse_unready(f"{served.model} {served.version} does not answer") from None
        return card


def find_handle(application: str) -> Any:
    """Return the handle of a model's application. Raises what Serve raises where there is none yet."""
    from ray import serve

    return serve.get_deployment_handle(DEPLOYMENT, application)


async def predict(handle: Any, request: Request) -> Answer:
    return Answer(*await handle.predict.remote(request))


async def describe(handle: Any) -> dict[str, Any]:
    card: dict[str, Any] = await handle.describe.remote()
    return card
