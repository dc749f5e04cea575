"""The HTTP side: a request of any form to the model that it names, and an answer in our own form whatever happens."""

import asyncio
import logging
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from mar_tools.front.client_keys import ClientKeys
from mar_tools.ray_serving.channel import Listening
from mar_tools.ray_serving.exchange import Answer
from mar_tools.ray_serving.forms import to_request
from mar_tools.ray_serving.listening import HttpServer
from mar_tools.ray_serving.metadata import SERVER, describe_tensors
from mar_tools.ray_serving.models import ModelTable, Served
from mar_tools.ray_serving.names import DEPLOYMENT, SHELF, SHELF_APPLICATION
from mar_tools.ray_serving.pool import ClosedError
from mar_tools.ray_serving.refusals import (
    RefusalError,
    refuse_broken,
    refuse_busy,
    refuse_fault,
    refuse_key,
    refuse_method,
    refuse_route,
    refuse_size,
    refuse_slow,
    refuse_unready,
    to_answer,
    to_json,
)
from mar_tools.ray_serving.routes import OPEN, Route, find_route
from vision_serving.worker.correlation import PLAIN_ID, TRACEPARENT

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout  # of aiohttp, which Ray Serve needs

logger = logging.getLogger("ray.serve")  # whose log of this replica it is
LOOK_S = 5.0  # for replicas to say where they listen
BODY_TIMEOUT_S = 10.0  # between two pieces of a body, as at the front
MOST_BYTES_UNDER_WAY = 256 << 20  # of bodies of all requests: each is held twice while it is sent to a replica
BODIES_ARE_MANY = "the bodies of the requests under way are as many bytes as the server takes at once"


class Ingress:
    """The deployment that HTTP reaches. keys: a file of client keys, as the front has it; None asks for none.

    It listens itself: through Ray's proxy a request costs several times what a small model does.
    """

    def __init__(self, listen: tuple[str, int], keys: str | None, max_body_bytes: int, answer_timeout_s: float) -> None:
        self._keys = ClientKeys(Path(keys)) if keys else None
        self._max_body_bytes = max_body_bytes
        self._answer_timeout_s = answer_timeout_s
        self._bytes_under_way = 0
        self._table = ModelTable(find_replicas, load_on_demand)
        self._follower: asyncio.Task[None] | None = None
        self._http = HttpServer(self._serve, *listen)
        self._actions: dict[str, Callable[[Route], Awaitable[Answer]]] = {
            "ping": self._ping,
            "live": self._live,
            "ready": self._ready,
            "server": self._describe_server,
            "metadata": self._describe_tensors,
            "model_ready": self._model_ready,
            "names": self._list_names,
            "models": self._list_models,
            "healthz": self._healthz,
            "describe": self._describe,
        }

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Serve these models; Serve calls it at the start, and when a new configuration is deployed."""
        self._table.want(user_config["models"])
        if self._follower is None:
            self._http.start()
            self._follower = asyncio.create_task(self._table.follow())

    async def is_complete(self) -> bool:
        """Return whether all that is wanted is served."""
        return self._table.is_complete

    async def problems(self) -> dict[str, str]:
        """Return why archives could not be loaded on demand, by application."""
        return self._table.problems

    async def drain(self) -> None:
        """Listen no more, and return when what is under way is answered."""
        await self._http.stop()

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request of ASGI, in JSON whatever fails."""
        request = Request(scope, receive)
        request.state.ids = find_ids(request.headers)
        try:
            answer = await self._answer(request)
        except RefusalError as refusal:
            answer = to_answer(refusal, scope["path"])
        except ClientDisconnect:
            return  # nobody is there to be answered
        except Exception:
            logger.exception("a request to %s failed in the ingress", scope["path"])
            answer = to_answer(refuse_fault(), scope["path"])
        told = {"Content-Type": answer.content_type, "X-Content-Type-Options": "nosniff"}
        headers = {**answer.headers, **request.state.ids, **told}
        await Response(answer.body, answer.status, headers)(scope, receive, send)

    async def _answer(self, request: Request) -> Answer:
        route = find_route(request.scope["path"])  # not request.url, which is made of the header Host, too
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

    async def _predict(self, request: Request, route: Route) -> Answer:
        model = route.model or request.query_params.get("model_name") or self._table.only_model()
        if model is None:
            raise RefusalError(400, "BadRequestException", "Parameter model_name is required.")
        self._table.find(model, route.version)  # before its body is read
        held = self._reserve(request.headers)
        try:
            body = await self._read(request)
            query = request.scope["query_string"].decode("latin-1")
            asked = to_request(body, request.headers, query, route.action == "explain")
            asked.headers.update(request.state.ids)
            tries = 1 if route.action == "explain" else 2
            while True:
                try:
                    served = self._table.find(model, route.version)
                    return await served.pool.ask(asked, tries, self._answer_timeout_s)
                except ClosedError:  # a version that was taken away while this waited: its successor is asked
                    pass
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

    async def _read(self, request: Request) -> bytes:
        body, pieces = bytearray(), aiter(request.stream())
        while True:
            try:
                async with timeout(BODY_TIMEOUT_S):
                    body += await anext(pieces)
            except StopAsyncIteration:
                return bytes(body)
            except (asyncio.TimeoutError, TimeoutError):
                raise refuse_slow(BODY_TIMEOUT_S) from None
            if len(body) > self._max_body_bytes:
                raise refuse_size(self._max_body_bytes)

    async def _ping(self, route: Route) -> Answer:
        return to_json({"status": "Healthy"})

    async def _healthz(self, route: Route) -> Answer:
        """Answer what KubeRay asks each machine."""
        return Answer(200, "text/plain", {}, b"success")

    async def _live(self, route: Route) -> Answer:
        return to_json({"live": True})

    async def _ready(self, route: Route) -> Answer:
        """Say whether all that is wanted is served, and each version has a replica."""
        served = [each for model in self._table.names() for each in self._table.versions(model)]
        ready = self._table.is_complete and all(is_ready(each) for each in served)
        return to_json({"ready": ready}, 200 if ready else 503)

    async def _model_ready(self, route: Route) -> Answer:
        ready = is_ready(self._table.find(route.model, route.version))
        return to_json({"name": route.model, "ready": ready}, 200 if ready else 503)

    async def _describe_server(self, route: Route) -> Answer:
        return to_json(SERVER)

    async def _describe_tensors(self, route: Route) -> Answer:
        card = self._table.find(route.model, route.version).pool.card
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
        return to_json(
            [
                {
                    "modelName": served.model,
                    "modelVersion": served.version,
                    "defaultVersion": served is versions[0],
                    "customizedMetadata": served.pool.card,
                }
                for served in chosen
            ]
        )


def is_ready(served: Served) -> bool:
    """Return whether a replica of it is there, or is loaded when it is asked."""
    return served.pool.is_ready or served.pool.is_on_demand


def find_ids(headers: Any) -> dict[str, str]:
    """Return the headers by which a request is followed, as the front has them: for the model, and for the answer.

    A client's own id counts where it is plain and bounded, else a new one is given.
    """
    given, trace = headers.get("x-request-id", ""), headers.get("traceparent", "")
    ids = {"X-Request-Id": given if PLAIN_ID.fullmatch(given) else uuid.uuid4().hex}
    return {**ids, "traceparent": trace} if TRACEPARENT.fullmatch(trace) else ids


async def find_replicas(application: str) -> list[Listening]:
    """Return the replicas of a model's application that have loaded its archive."""
    try:
        asking = (await asyncio.to_thread(find_handle, DEPLOYMENT, application)).broadcast("listen")
        found = await asking.results_async(timeout_s=LOOK_S, return_exceptions=True)
    except Exception:  # whatever Serve raises: there is none yet, or none any more; the command says why
        return []
    return [Listening(*each) for each in found if not isinstance(each, Exception)]


async def load_on_demand(application: str) -> Listening:
    """Have an archive loaded, and return where it is asked. Raises RefusalError."""
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    try:
        handle = await asyncio.to_thread(find_handle, SHELF, SHELF_APPLICATION)
        said = await handle.open.remote(application)
    except (RayError, RayServeException) as error:
        logger.warning("%s could not be loaded: %r", application, error)
        raise refuse_unready(f"{application} cannot be loaded now") from None
    if "busy" in said:
        raise refuse_busy(said["busy"])
    if "problem" in said:
        raise refuse_broken(said["problem"])
    return Listening(**said["listening"])


def find_handle(deployment: str, application: str) -> Any:
    """Return the handle of an application. Raises what Serve raises where there is none yet."""
    from ray import serve

    return serve.get_deployment_handle(deployment, application)
