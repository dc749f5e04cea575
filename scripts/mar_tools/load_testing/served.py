"""The models of a running TorchServe as targets, with what it and its archives tell of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mar_tools.load_testing.answers import expect_answers
from mar_tools.load_testing.targets import Request, Target, prepare_requests
from mar_tools.serving.server import Server
from mar_tools.serving.torchserve_api import read_address
from vision_serving.cores import ThreadPlan
from vision_serving.errors import ConfigError
from vision_serving.worker.server_settings import read_properties, read_threads


@dataclass(frozen=True)
class ServedModel:
    """One model as it is served. threads: of each worker. archive: None where it is not in the store."""

    target: Target
    version: str
    workers: int
    batch_size: int
    max_batch_delay_ms: int
    threads: ThreadPlan
    archive: Path | None

    def as_document(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "workers": self.workers,
            "threads": self.threads.engine,
            "batch_size": self.batch_size,
            "max_batch_delay_ms": self.max_batch_delay_ms,
        }


def find_served_models(server: Server, names: Sequence[str]) -> list[ServedModel]:
    """Their default versions. Raises ServerError where the server does not answer, or serves no such model."""
    address = read_address(server.config)
    process = server.process()
    # A current token: the API client renews the one that has expired, the load clients do not.
    headers = {} if address.key_file is None else {"Authorization": f"Bearer {server.client.renew_token('inference')}"}
    models = []
    for name in names:
        url = f"{address.inference}/predictions/{quote(name)}"
        target = Target(name, url, headers, None if process is None else process.pid)
        models.append(_read_model(server, name, target))
    return models


def _read_model(server: Server, name: str, target: Target) -> ServedModel:
    versions = server.client.describe(name)
    served = next((entry for entry in versions if entry.get("defaultVersion")), versions[0])
    properties = server.config.read_text(encoding="utf-8")
    store = server.folder / read_properties(properties).get("model_store", "model_store")
    archive = store / Path(served["modelUrl"]).name
    return ServedModel(
        target=target,
        version=served["modelVersion"],
        workers=max(served["minWorkers"], 1),
        batch_size=served["batchSize"],
        max_batch_delay_ms=served["maxBatchDelay"],
        threads=read_threads(properties, name, served["modelVersion"]),
        archive=archive if archive.is_file() else None,
    )


def prepare_checked_requests(
    export: Path | None, images: Sequence[bytes], threads: ThreadPlan
) -> tuple[list[Request], str]:
    """Requests with the answers that an export or archive gives in process; else without, and why."""
    if export is None:
        return prepare_requests(images), "its archive is not in the model store"
    try:
        return prepare_requests(images, expected=expect_answers(export, images, threads)), ""
    except ConfigError as error:  # TorchServe serves archives that are not ours
        return prepare_requests(images), str(error)
