"""BentoML: adaptive batching in each worker process, which learns how long to wait; --batch-delay-ms does not apply.

BentoML's own input types take lists of images as multipart or JSON. The two specifications below take the plain image
and give the plain JSON, which costs less.
"""

import os
import sys
from pathlib import Path
from typing import Any

import bentoml
from starlette.requests import Request
from starlette.responses import Response

from lab.peers.peer_arguments import ServerArguments, parse_server_arguments
from lab.peers.peer_servers import load_model

MAX_LATENCY_MS = 60_000  # of a request: BentoML answers 503 to those that it expects to take longer

if __name__ == "__main__":
    parse_server_arguments(__doc__)
ARGUMENTS = ServerArguments.from_environment()


class EncodedImage(bentoml.IODescriptor):
    """A batch of one, for BentoML to merge with others."""

    images: list[bytes]

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> "EncodedImage":
        return cls(images=[await request.body()])


class Answer(bentoml.IODescriptor):
    @classmethod
    async def to_http_response(cls, obj: list[bytes], serde: Any) -> Response:
        return Response(obj[0], media_type="application/json")


@bentoml.service(
    workers=ARGUMENTS.workers,
    threads=1,
    traffic={"timeout": MAX_LATENCY_MS // 1000},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Classifier:
    def __init__(self) -> None:
        self._model = load_model(ARGUMENTS)

    @bentoml.api(
        batchable=True,
        max_batch_size=ARGUMENTS.batch_size,
        max_latency_ms=MAX_LATENCY_MS,
        input_spec=EncodedImage,
        output_spec=Answer,
    )
    def predict(self, images: list[bytes]) -> list[bytes]:
        return self._model.predict([self._model.decode(image) for image in images])


if __name__ == "__main__":
    service = ["serve:Classifier", "--working-dir", str(Path(__file__).parent)]
    address = ["--host", ARGUMENTS.host, "--port", str(ARGUMENTS.port)]
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", "serve", *service, *address])
