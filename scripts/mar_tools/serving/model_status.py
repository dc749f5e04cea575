"""The versions of the models of a running server, as its management API tells them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mar_tools.serving.torchserve_api import TorchServeClient
from vision_serving.cores import ThreadPlan
from vision_serving.worker.server_settings import read_threads

READY = "READY"


@dataclass(frozen=True)
class ModelStatus:
    """One version of one model on a running server. threads: of each worker, as the properties have it."""

    model: str
    version: str
    workers_ready: int
    workers: int
    threads: ThreadPlan
    batch_size: int
    max_batch_delay_ms: int
    device: str

    @property
    def identity(self) -> tuple[str, str]:
        return self.model, self.version

    @property
    def ready(self) -> bool:
        return self.workers_ready == self.workers > 0


def list_versions(client: TorchServeClient) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each version with the name of its model, as TorchServe describes it. Raises ServerError."""
    for model in client.list_models():
        for entry in client.describe(model):
            yield model, entry


def read_status(model: str, entry: Mapping[str, Any], properties: str) -> ModelStatus:
    workers = entry["workers"]
    return ModelStatus(
        model=model,
        version=entry["modelVersion"],
        workers_ready=sum(worker["status"] == READY for worker in workers),
        workers=max(len(workers), entry["minWorkers"]),
        threads=read_threads(properties, model, entry["modelVersion"]),
        batch_size=entry["batchSize"],
        max_batch_delay_ms=entry["maxBatchDelay"],
        device=entry["deviceType"],
    )
