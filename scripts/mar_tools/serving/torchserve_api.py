"""A client of TorchServe's APIs: timeouts always, retries where they are safe, tokens handled.

It predicts as everybody does, through `vision_client`, whose connections the management API is asked through too.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import requests

from mar_tools.serving.address import ServerAddress
from mar_tools.waiting import wait_until
from vision_client.client import predictions_path, request_headers
from vision_client.connection import Connection
from vision_client.errors import PredictionError, ServerUnreachableError
from vision_serving.errors import ConfigError, VisionServingError

PREDICT_TIMEOUT_S = 60.0
MANAGE_TIMEOUT_S = 180.0
RETRIES = 4  # of predictions, while the server is busy
POLL_S = 0.25
# Of calls that start or end workers. TorchServe would wait for them on one of its I/O threads, and all connections of
# that thread with it: of 16 threads, each holds a 16th of the requests.
NOT_WAITING = {"synchronous": "false"}
CONNECTIONS = 64  # that are kept open, as many as predict_images.py asks through at once
START_IT = "start it with python scripts/serve_models.py start"
EXPECTED_ARCHIVE = "expected the file name of an archive in the model store, such as resnet50.mar"
# What TorchServe says -> what to do.
REGISTER_HINTS = {
    "already registered": "; `manage_models.py unregister` it first, or give the recipe another `version`",
    "not found": " (archives are looked up in the model store)",
}


class ServerError(VisionServingError):
    """The server cannot be reached, or refused; the message says which, and what to do."""


class TorchServeClient:
    """Predictions and GET requests are retried, scaling once: asking twice changes nothing. Registering is not retried.

    deadline: of time.monotonic, when the last call has to have its answer; nothing is retried then.
    """

    def __init__(self, address: ServerAddress, deadline: float | None = None) -> None:
        self._address = address
        self._deadline = deadline
        self._unretried: Connection | None = None  # made at its first use

    @cached_property
    def _inference(self) -> Connection:
        return self._connect(self._address.inference, self._token_source("inference"), RETRIES)

    @cached_property
    def _management(self) -> Connection:
        return self._connect(self._address.management, self._token_source("management"), RETRIES, ("GET",))

    def _connect(
        self, url: str, token: Callable[[], str] | None, retries: int, retried: tuple[str, ...] = ("GET", "POST")
    ) -> Connection:
        if self._deadline is not None:
            retries = 0
        # A command says at once that no server is there.
        connection = Connection(url, token, CONNECTIONS, retries, retried, connect_retries=min(retries, 1))
        connection.session.trust_env = False  # a proxy of the environment must not see a server's tokens
        return connection

    def _token_source(self, kind: str) -> Callable[[], str] | None:
        """Return what is asked for a token first, and again when the server refuses the one that it gave."""
        if self._address.key_file is None:
            return None
        given = ""

        def next_token() -> str:
            nonlocal given
            current = self.token(kind)  # another process may have renewed it, or started the server anew
            given = current if current != given else self.renew_token(kind)
            return given

        return next_token

    def with_deadline(self, deadline: float) -> "TorchServeClient":
        """Return a client of the same server, over the same connections where this one has a deadline too."""
        if self._deadline is None:
            return TorchServeClient(self._address, deadline)
        other = copy(self)
        other._deadline = deadline
        return other

    def seconds_left(self) -> float:
        """Return the seconds until the deadline."""
        return math.inf if self._deadline is None else self._deadline - time.monotonic()

    def predict(
        self, model: str, image: bytes, options: Mapping[str, str] | None = None, version: str | None = None
    ) -> requests.Response:
        """Send an encoded image, again while the server is busy. Raises ConfigError for what no header can carry."""
        try:
            headers = request_headers("application/json", options or {})
        except ValueError as error:
            raise ConfigError(str(error)) from error
        path = predictions_path(model, version)
        return self._ask(self._inference, "POST", path, PREDICT_TIMEOUT_S, data=image, headers=headers)

    def forward(self, path: str, body: bytes, headers: Mapping[str, str | bytes]) -> requests.Response:
        """Return the answer to another's prediction or explanation as it comes. Nothing is retried but an old token."""
        if self._unretried is None:
            self._unretried = self._connect(self._address.inference, self._token_source("inference"), 0)
        return self._ask(self._unretried, "POST", path, PREDICT_TIMEOUT_S, data=body, headers=headers)

    def list_models(self) -> list[str]:
        document = self._manage("GET", "/models?limit=1000")
        return [model["modelName"] for model in document["models"]]

    def describe(self, model: str, version: str | None = None) -> list[dict[str, Any]]:
        """Return one entry per version (all of them, unless one is asked for)."""
        return list(self._manage("GET", _model_path(model, version or "all")))

    def describe_default(self, model: str) -> dict[str, Any]:
        """Return the version that answers without one in the path."""
        return dict(self._manage("GET", _model_path(model, None))[0])

    def describe_card(self, model: str, version: str | None = None) -> dict[str, Any]:
        """Return the model card, which a worker gives: of one version, the default one unless one is named."""
        [document] = self._manage("GET", _model_path(model, version), params={"customized": "true"})
        if "customizedMetadata" not in document:
            raise ServerError(f"model {model!r} gave no card; was its archive built by build_model.py?")
        card: dict[str, Any] = document["customizedMetadata"]
        return card

    def register(self, archive: str, workers: int, batch_size: int, max_batch_delay_ms: int) -> Any:
        """Register `archive`, a file name in the server's model store. Returns when the workers are ready.

        Raises ServerError for a path or a URL too: TorchServe would take the path of a folder anywhere on its machine.
        """
        if not archive.endswith(".mar") or archive != Path(archive).name:
            raise ServerError(f"cannot register {archive!r} by path or URL: {EXPECTED_ARCHIVE}")
        parameters = {
            "initial_workers": str(workers),
            "batch_size": str(batch_size),
            "max_batch_delay": str(max_batch_delay_ms),
            **NOT_WAITING,
        }
        before = self.versions_of(archive)
        try:
            self._manage("POST", "/models", params={"url": archive, **parameters})
            found = sorted(self.versions_of(archive) - before)
            if len(found) != 1:
                raise ServerError(f"it is registered, but nobody waits for it: others came at the same time, {found}")
            [(model, version)] = found
            self._wait_for_workers(model, version, workers, (0, 0))
        except ServerError as error:
            hint = next((hint for said, hint in REGISTER_HINTS.items() if said in str(error)), "")
            raise ServerError(f"cannot register {archive}: {error}{hint}") from error
        return {"status": f"model {model} {version} is served by {workers} worker{'s' * (workers != 1)}"}

    def scale(self, model: str, version: str | None, workers: int) -> Any:
        """Returns when there are as many workers, all ready. Where one cannot load, there are as many as before."""
        path = _model_path(model, version)
        [before] = self._manage("GET", path)
        self._limit_workers(path, workers, workers)
        self._wait_for_workers(model, version, workers, (before["minWorkers"], before["maxWorkers"]))
        return {"status": f"model {model} is served by {workers} worker{'s' * (workers != 1)}"}

    def versions_of(self, archive: str) -> set[tuple[str, str]]:
        """Return the models and versions that the server has from this file of its store."""
        entries = ((model, entry) for model in self.list_models() for entry in self.describe(model))
        return {(model, entry["modelVersion"]) for model, entry in entries if entry["modelUrl"] == archive}

    def _limit_workers(self, path: str, least: int, most: int) -> None:
        """Limit the workers: TorchServe starts what is lacking, and ends the youngest of what is too much."""
        self._manage("PUT", path, params={"min_worker": str(least), "max_worker": str(most), **NOT_WAITING})

    def _wait_for_workers(self, model: str, version: str | None, count: int, before: tuple[int, int]) -> None:
        """Raises ServerError where they are late, or one ends loading; then `before` limits it again: least, most."""
        path = _model_path(model, version)
        loading: dict[str, int] = {}

        def are_ready() -> bool:
            workers = self._manage("GET", path)[0]["workers"]
            for worker in workers:
                if worker["status"] == "READY" or worker["pid"] < 0:
                    continue
                if loading.setdefault(worker["id"], worker["pid"]) != worker["pid"]:
                    self._limit_workers(path, *before)
                    raise ServerError(f"the workers of {model} end while they load it; see logs/model_log.log")
            return [worker["status"] for worker in workers] == ["READY"] * count

        if not wait_until(are_ready, MANAGE_TIMEOUT_S, POLL_S):
            raise ServerError(f"the workers of {model} were not ready within {MANAGE_TIMEOUT_S:g} s")

    def unregister(self, model: str, version: str | None) -> Any:
        return self._manage("DELETE", _model_path(model, version))

    def set_default(self, model: str, version: str) -> Any:
        return self._manage("PUT", f"{_model_path(model, version)}/set-default")

    def read_metrics(self) -> str:
        """Return them as Prometheus reads them; empty where the server collects none, or shows them to nobody."""
        if self._address.metrics is None:
            return ""
        response = self._ask(self._connect(self._address.metrics, None, 1), "GET", "/metrics", MANAGE_TIMEOUT_S)
        return response.text if response.ok else ""

    def renew_token(self, kind: str) -> str:
        """Return a new `inference` or `management` token; the server rewrites its key file."""
        renewing = self._connect(self._address.management, lambda: self.token("API"), 1, ("GET",))
        response = self._ask(renewing, "GET", "/token", MANAGE_TIMEOUT_S, params={"type": kind})
        if not response.ok:
            raise ServerError(f"the server gave no new {kind} token: {tell_refusal(response)}")
        return self.token(kind)

    def _manage(self, method: str, path: str, **arguments: Any) -> Any:
        response = self._ask(self._management, method, path, MANAGE_TIMEOUT_S, **arguments)
        if method == "PUT" and response.status_code == requests.codes.server_error:
            # TorchServe stumbles over a worker that ends while it scales, and asking again changes nothing.
            response = self._ask(self._management, method, path, MANAGE_TIMEOUT_S, **arguments)
        if not response.ok:
            reason = tell_refusal(response)
            with suppress(ServerError):  # the reason matters more than what else there is
                if reason.startswith("Model not found: "):
                    reason += f"; the server has {self.list_models()}"
                elif reason.startswith("Model version") and path != "/models":  # which names no model
                    versions = [entry["modelVersion"] for entry in self.describe(unquote(path.split("/")[2]))]
                    reason += f"; the server has the versions {versions}"
            raise ServerError(reason)
        return response.json()

    def _ask(
        self, connection: Connection, method: str, path: str, timeout_s: float, **arguments: Any
    ) -> requests.Response:
        """Return the answer, whatever its status, with a new token where the first has expired."""
        left_s = self.seconds_left()
        if left_s <= 0:
            raise ServerError("the time is up")
        try:
            return connection.request(method, path, min(timeout_s, left_s), **arguments)
        except ServerUnreachableError as error:
            if isinstance(error.__cause__, requests.exceptions.SSLError):
                raise ServerError(
                    f"{error.message.partition(';')[0]}; is the address in config.properties right?"
                ) from error
            raise ServerError(f"no server answers at {connection.url}; {START_IT}") from error
        except PredictionError as error:
            raise ServerError(error.message) from error

    def token(self, kind: str) -> str:
        """Return the current token, `inference`, `management` or `API`, from the server's key file."""
        path = self._address.key_file
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))[kind]["key"]) if path else ""
        except FileNotFoundError as error:
            missing = f"no server runs here ({path} is missing); {START_IT}"
            raise ServerError(f"{missing}, or set VISION_SERVING_STATE to its state folder") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ServerError(f"{path}: no {kind} token in it; restart the server to have it written again") from error


def _model_path(model: str, version: str | None) -> str:
    """Return the path in the management API; without a version, of the default one."""
    return f"/models/{quote(model)}" + (f"/{quote(version)}" if version else "")


def tell_refusal(response: requests.Response) -> str:
    """Return the server's own message, or its status when there is none."""
    try:
        return str(response.json()["message"]).splitlines()[0]
    except (ValueError, KeyError, TypeError, IndexError):
        return f"the server answered {response.status_code} {response.reason}"
