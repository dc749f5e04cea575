"""LitServe: `decode_request` for each request, `predict` for a batch, ZeroMQ between the server and its workers."""

from collections.abc import Sequence
from typing import Annotated, Any

import litserve
from fastapi import Body, Response

from lab.peers.peer_arguments import ServerArguments, parse_server_arguments
from lab.peers.peer_servers import load_model


class ClassifierAPI(litserve.LitAPI):
    def __init__(self, arguments: ServerArguments) -> None:
        super().__init__(max_batch_size=arguments.batch_size, batch_timeout=arguments.batch_delay_ms / 1000)
        self._arguments = arguments

    def setup(self, device: str) -> None:
        self._model = load_model(self._arguments)

    def decode_request(self, request: Annotated[bytes, Body(media_type="image/jpeg")]) -> Any:
        return self._model.decode(request)

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, inputs: Any) -> Sequence[bytes] | bytes:
        if self.max_batch_size == 1:  # LitServe hands over the item itself then
            return self._model.predict([inputs])[0]
        return self._model.predict(inputs)

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        return output

    def encode_response(self, output: bytes) -> Response:
        return Response(output, media_type="application/json")


if __name__ == "__main__":
    arguments = parse_server_arguments(__doc__)
    server = litserve.LitServer(
        ClassifierAPI(arguments), accelerator="cpu", workers_per_device=arguments.workers, fast_queue=True
    )
    server.run(
        host=arguments.host, port=arguments.port, num_api_servers=1, log_level="warning", generate_client_file=False
    )
