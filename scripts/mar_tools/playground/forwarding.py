"""What the page asks for, answered by TorchServe: predictions and explanations as they come, models and their cards."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import requests

from mar_tools.playground.assets import POLICY
from mar_tools.serving.torchserve_api import ServerError, TorchServeClient

NAME = r"(?!\.{1,2}(?:/|$))[\w.-]+"  # no `..`, which would lead to other routes
ASKED = re.compile(rf"/(predictions|explanations)/{NAME}(/{NAME})?", re.ASCII)
MODELS = re.compile(rf"/playground/models(?:/({NAME})(?:/({NAME}))?)?", re.ASCII)
PASSED_ON = ("Content-Type", "Accept", "X-Inference-Options", "X-Request-Id")
UNSHOWN = ("files", "versions")  # of a card: long, and of the server's machine
# Of a connection to TorchServe alone, or written by our own server.
OF_CONNECTION = {"connection", "content-length", "transfer-encoding", "keep-alive", "date", "server"}


@dataclass(frozen=True)
class Answer:
    """An HTTP answer. headers: without those of the connection. policy: what a browser may do with it."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    policy: str = POLICY


class Forwarder:
    """Asks one TorchServe. Safe to use from several threads."""

    def __init__(self, client: TorchServeClient) -> None:
        self._client = client

    def predict(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Return TorchServe's answer to a prediction or explanation, errors included."""
        passed = {name: headers[name].encode("latin-1") for name in PASSED_ON if name in headers}
        try:
            found = self._client.forward(path, body, passed)
        except ServerError as error:
            return refuse(502, "UpstreamError", str(error))
        return Answer(found.status_code, found.content, _own_headers(found))

    def describe(self, path: str) -> Answer:
        """Return the list of models, or the card of one."""
        found = MODELS.fullmatch(path)
        if found is None:
            return refuse(404, "NotFoundError", f"no such route: {path[:200]!r}")
        try:
            document = self._card(found[1], found[2]) if found[1] else {"models": self._list_models()}
        except ServerError as error:
            status, kind = (404, "ModelNotFoundError") if "not found" in str(error) else (503, "UnavailableError")
            return refuse(status, kind, str(error))
        return Answer(200, orjson.dumps(document))

    def _card(self, model: str, version: str | None) -> dict[str, Any]:
        card = self._client.describe_card(model, version)
        return {key: value for key, value in card.items() if key not in UNSHOWN}

    def _list_models(self) -> list[dict[str, Any]]:
        return [self._describe_versions(name) for name in self._client.list_models()]

    def _describe_versions(self, name: str) -> dict[str, Any]:
        versions = sorted(entry["modelVersion"] for entry in self._client.describe(name))
        return {"name": name, "default": self._client.describe_default(name)["modelVersion"], "versions": versions}


def refuse(status: int, kind: str, message: str) -> Answer:
    """Return an error in the form of the front's."""
    return Answer(status, orjson.dumps({"code": status, "type": kind, "message": message}))


def _own_headers(response: requests.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.lower() not in OF_CONNECTION}
