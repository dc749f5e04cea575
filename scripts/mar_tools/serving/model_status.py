"""The versions of the models of a running server, as its management API tells them, and where its settings differ."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mar_tools.serving.torchserve_api import TorchServeClient
from vision_serving.cores import ThreadPlan
from vision_serving.worker.server_settings import read_model, read_properties, read_threads

READY = "READY"
# What TorchServe takes for what `models` does not say of a model.
DEFAULTS = {"minWorkers": 1, "batchSize": 1, "maxBatchDelay": 100}


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


def find_differences(models: Sequence[ModelStatus], properties_text: str) -> list[str]:
    """Return a line each: what the server does, and what the file says. Raises ConfigError for a bad file."""
    return [line for model in models for line in _differences_of(model, properties_text)]


def _differences_of(model: ModelStatus, properties_text: str) -> Iterator[str]:
    found = {"minWorkers": model.workers, "batchSize": model.batch_size, "maxBatchDelay": model.max_batch_delay_ms}
    named = read_model(properties_text, model.model).get(model.version)
    if named is None:
        named = {"minWorkers": read_properties(properties_text).get("default_workers_per_model", 1)}
    expected = {**DEFAULTS, **named}
    for key, value in found.items():
        if value != int(expected[key]):
            yield f"{model.model} {model.version}: {key} is {value}, and {expected[key]} after a restart"
