"""mosec: a Rust server in front of Python processes, which it hands batches over Unix sockets.

One stage: mosec's GPU examples preprocess in a stage of its own, which on CPU costs a copy of each tensor and gains
nothing.
"""

import os
from typing import Any

from mosec import Server, Worker

from lab.peers.peer_arguments import ServerArguments, parse_server_arguments
from lab.peers.peer_servers import load_model


class Inference(Worker):
    resp_mime_type = "application/json"

    def __init__(self) -> None:
        super().__init__()
        self._model = load_model(ServerArguments.from_environment())

    def deserialize(self, data: bytes) -> Any:
        return self._model.decode(data)

    def forward(self, data: Any) -> Any:
        """Return a list where the stage has batches, else one item."""
        return self._model.predict(data) if self.max_batch_size > 1 else self._model.predict([data])[0]

    def serialize(self, data: bytes) -> bytes:
        return data


def main(arguments: ServerArguments) -> None:
    os.environ |= {"MOSEC_ADDRESS": arguments.host, "MOSEC_PORT": str(arguments.port)}
    os.environ |= {"MOSEC_TIMEOUT": "60000", "MOSEC_LOG_LEVEL": "warning"}
    server = Server()
    server.append_worker(
        Inference,
        num=arguments.workers,
        max_batch_size=arguments.batch_size,
        max_wait_time=arguments.batch_delay_ms,
        timeout=60,
    )
    server.run()


if __name__ == "__main__":
    main(parse_server_arguments(__doc__))
