"""One image -> its answer, from a running server or in process from an archive; both speak the HTTP contract."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import requests

from mar_tools.archive import extract_archive
from mar_tools.torchserve_api import ServerError, TorchServeClient, describe_failure
from vision_serving.payload import Payload
from vision_serving.responses import encode_response

Answer = dict[str, Any]
Predict = Callable[[bytes], Answer]


def predict_over_http(client: TorchServeClient, model: str, options: Mapping[str, str]) -> Predict:
    """Answers are the JSON bodies of the server, errors too. Raises ServerError where there is no such model."""

    def predict(encoded: bytes) -> Answer:
        response = client.predict(model, encoded, options)
        if response.status_code == requests.codes.not_found:
            raise ServerError(f"{describe_failure(response)}; the server has {client.list_models()}")
        try:
            answer: Answer = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            answer = {"code": response.status_code, "type": "ServerError", "message": response.reason}
        return answer

    return predict


@contextmanager
def predict_in_process(archive: Path, options: Mapping[str, str]) -> Iterator[Predict]:
    """The archive's own configuration and artifact, with this checkout's handlers. Raises ConfigError."""
    from mar_tools.verification import load_handler  # imports PyTorch, which takes seconds: no need of it over HTTP

    with tempfile.TemporaryDirectory(prefix="vision-serving-") as folder:
        extract_archive(archive, Path(folder))
        handler = load_handler(Path(folder))

        def predict(encoded: bytes) -> Answer:
            outcome = handler.predict([Payload(images=(encoded,), options=dict(options))])[0]
            answer: Answer = orjson.loads(encode_response(outcome).body)
            return answer

        yield predict
