"""Ray Serve in its high-throughput mode: HAProxy in front of replicas, which take requests directly and batch them.

https://docs.ray.io/en/latest/serve/advanced-guides/performance.html
"""

import asyncio
import os
import signal
import sys
import tempfile

from lab.peers.peer_arguments import ServerArguments, parse_server_arguments
from lab.peers.peer_servers import load_model
from mar_tools.serving.ports import find_free_ports
from vision_serving.cores import usable_cores

METRICS_PORT, STATS_PORT = find_free_ports(2)  # HAProxy's own are fixed, and two of them could not run
SETTINGS = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": str(usable_cores()),
    "RAY_SERVE_HAPROXY_METRICS_PORT": str(METRICS_PORT),
    "RAY_SERVE_HAPROXY_STATS_PORT": str(STATS_PORT),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",  # no token in the home folder; everything listens on this machine only
}
MAX_ONGOING_REQUESTS = 100  # of a replica; the default of 5 would keep batches small
os.environ |= SETTINGS  # Ray reads them when it is imported

import ray  # noqa: E402
from ray import serve  # noqa: E402
from ray.serve.config import HTTPOptions  # noqa: E402
from ray.serve.schema import LoggingConfig  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import Response  # noqa: E402


class Classifier:
    def __init__(self, arguments: ServerArguments) -> None:
        self._model = load_model(arguments)
        self.predict.set_max_batch_size(arguments.batch_size)
        self.predict.set_batch_wait_timeout_s(arguments.batch_delay_ms / 1000)

    @serve.batch
    async def predict(self, bodies: list[bytes]) -> list[bytes]:
        return await asyncio.to_thread(self._run, bodies)  # beside the loop, which goes on taking requests

    def _run(self, bodies: list[bytes]) -> list[bytes]:
        return self._model.predict([self._model.decode(body) for body in bodies])

    async def __call__(self, request: Request) -> Response:
        return Response(await self.predict(await request.body()), media_type="application/json")


def main(arguments: ServerArguments) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that Ray stops what it started
    ray.init(
        num_cpus=arguments.workers * arguments.threads,
        include_dashboard=False,
        log_to_driver=False,
        _temp_dir=tempfile.gettempdir(),
    )
    serve.start(http_options=HTTPOptions(host=arguments.host, port=arguments.port))
    deployment = serve.deployment(
        Classifier,
        num_replicas=arguments.workers,
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        ray_actor_options={"num_cpus": arguments.threads},
        logging_config=LoggingConfig(enable_access_log=False),
    )
    serve.run(deployment.bind(arguments), route_prefix="/predict", blocking=True)


if __name__ == "__main__":
    main(parse_server_arguments(__doc__))
