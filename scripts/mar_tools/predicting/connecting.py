"""Servers that predict: our own by its settings, or any, a front too, by its address and a key."""

from collections.abc import Mapping
from pathlib import Path

import requests

from mar_tools.predicting.predictors import Send
from mar_tools.serving.torchserve_api import (
    CONNECTIONS,
    PREDICT_TIMEOUT_S,
    RETRIES,
    ServerError,
    TorchServeClient,
    tell_refusal,
)
from vision_client.client import predictions_path, request_headers
from vision_client.connection import Connection
from vision_client.errors import PredictionError
from vision_serving.errors import ConfigError


def connect_own(client: TorchServeClient) -> Send:
    """Return what sends a picture to the server that a `config.properties` describes, with its token."""

    def send(model: str, picture: bytes, options: Mapping[str, str]) -> requests.Response:
        response = client.predict(model, picture, options)
        if response.status_code == requests.codes.not_found:
            raise ServerError(f"{tell_refusal(response)}; the server has {client.list_models()}")
        return response

    return send


def connect(url: str, token: str | None, certificate: Path | None) -> Send:
    """Return what sends a picture to the server at an address. Raises ConfigError of what is no address.

    token: itself, or the path of TorchServe's key_file.json. certificate: of a server that signed its own.
    """
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"--address: expected http://HOST:PORT or https://HOST:PORT, got {url!r}")
    connection = Connection(url, token, CONNECTIONS, RETRIES, connect_retries=1)
    if certificate is not None:
        connection.session.verify = str(certificate)

    def send(model: str, picture: bytes, options: Mapping[str, str]) -> requests.Response:
        path = predictions_path(model, None)
        try:
            headers = request_headers("application/json", options)
            response = connection.request("POST", path, PREDICT_TIMEOUT_S, data=picture, headers=headers)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        except PredictionError as error:
            raise ServerError(error.message) from error
        if response.status_code == requests.codes.not_found:
            raise ServerError(f"{url}: {tell_refusal(response)}")
        return response

    return send
