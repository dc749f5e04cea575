"""MLServer: a custom inference runtime, adaptive batching in the server, parallel inference in worker processes.

MLServer has no binary tensors over HTTP: an image comes as base64 in the JSON of the Open Inference Protocol.
"""

import asyncio

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import Base64Codec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from lab.peers.peer_arguments import ServerArguments, parse_server_arguments
from lab.peers.peer_servers import load_model


class ClassifierRuntime(MLModel):
    async def load(self) -> bool:
        self._model = load_model(ServerArguments.from_environment())
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return one input `image` (N, 1): the requests of a batch, merged by MLServer."""
        bodies = Base64Codec.decode_input(payload.inputs[0])
        answers = self._model.predict([self._model.decode(body) for body in bodies])
        output = StringCodec.encode_output("answer", [answer.decode() for answer in answers])
        return InferenceResponse(model_name=self.name, outputs=[output])


async def main(arguments: ServerArguments) -> None:
    settings = Settings(
        debug=False,  # no access log
        host=arguments.host,
        http_port=arguments.port,
        grpc_port=0,  # any
        metrics_endpoint=None,
        gzip_enabled=False,
        parallel_workers=arguments.workers,
    )
    model = ModelSettings(
        name="classifier",
        implementation="serve.ClassifierRuntime",
        max_batch_size=arguments.batch_size,
        max_batch_time=arguments.batch_delay_ms / 1000,
    )
    await MLServer(settings).start([model])


if __name__ == "__main__":
    asyncio.run(main(parse_server_arguments(__doc__)))
