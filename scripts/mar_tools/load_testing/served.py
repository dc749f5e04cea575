"""The models of a running TorchServe as targets, the requests that they are sent, and the trials of both."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console

from mar_tools.images import load_encoded_images
from mar_tools.load_testing.answers import expect_answers
from mar_tools.load_testing.images import load_test_images, summarise_images
from mar_tools.load_testing.targets import Request, Target, prepare_requests
from mar_tools.load_testing.trials import LoadResult, LoadTrial, best_rate, closed_trial, in_process_trial, open_trial
from mar_tools.serving.address import read_address
from mar_tools.serving.server import Server
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
    """Find the default versions of models. Raises ServerError without an answer, or such a model."""
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


@dataclass(frozen=True)
class Workload:
    """Models, images and requests. exports: what gives the answers, by model. unchecked: with unknown answers."""

    images: list[bytes]
    models: list[ServedModel]
    exports: Mapping[str, Path | None]
    requests: Mapping[str, list[Request]]
    unchecked: list[str]

    def closed_trials(self, arguments: Namespace) -> list[LoadTrial]:
        return [
            closed_trial(model.target, self.requests[model.target.name], connections, arguments.round_s)
            for connections in arguments.connections
            for model in self.models
        ]

    def open_trials(self, arguments: Namespace, closed: Sequence[LoadResult]) -> list[LoadTrial]:
        """Open trials. closed: results of closed loops, which rates in per cent are shares of."""
        trials = []
        for rate in arguments.rates:
            for model in self.models:
                name = model.target.name
                amount = rate.of(best_rate(closed, name))
                trials.append(open_trial(model.target, self.requests[name], amount, arguments.round_s))
        return trials

    def in_process_trials(self, arguments: Namespace) -> list[LoadTrial]:
        """Return P's trials with the server's processes and threads. Raises ConfigError without an archive of ours."""
        if arguments.in_process is None:
            return []
        trials = []
        for model in self.models:
            name, export = model.target.name, self.exports[model.target.name]
            if name in self.unchecked or export is None:
                continue
            for batch_size in arguments.in_process or [model.batch_size]:
                share = (model.workers, model.threads.engine, batch_size)
                trials.append(in_process_trial(name, export, self.images, *share, arguments.round_s))
        if not trials:
            raise ConfigError("--in-process needs an archive of ours")
        return trials

    def as_document(self) -> dict[str, Any]:
        return {
            "client": "bundled",
            "images": summarise_images(self.images),
            "models": {model.target.name: model.as_document() for model in self.models},
            "not_checked": self.unchecked,
        }


def prepare_workload(arguments: Namespace, exports: Mapping[str, Path]) -> Workload:
    """Find the served models and compute the expected answers.

    exports: what gives a model's answers in place of its archive in the model store. Models whose answers cannot be
    checked are named on standard error. Raises ConfigError or ServerError.
    """
    images = load_images(arguments)
    models = find_served_models(Server(arguments.config), arguments.models)
    sources = {model.target.name: model.archive for model in models} | dict(exports)
    console = Console(stderr=True)
    requests, unchecked = {}, []
    for model in models:
        name = model.target.name
        with console.status(f"{name}: computing the expected answers"):
            requests[name], reason = prepare_checked_requests(sources[name], images, model.threads)
        if reason:
            unchecked.append(name)
            console.print(f"{name}: answers are not checked: {reason}", highlight=False, markup=False)
    return Workload(images, models, sources, requests, unchecked)


def load_images(arguments: Namespace) -> list[bytes]:
    if arguments.images is not None:
        return load_encoded_images(arguments.images, arguments.image_count)
    return load_test_images(arguments.image_count, arguments.image_size)


def prepare_checked_requests(
    export: Path | None, images: Sequence[bytes], threads: ThreadPlan
) -> tuple[list[Request], str]:
    """Prepare requests with the answers that an export or archive gives in process; else without, and why."""
    if export is None:
        return prepare_requests(images), "its archive is not in the model store"
    try:
        return prepare_requests(images, expected=expect_answers(export, images, threads)), ""
    except ConfigError as error:  # TorchServe serves archives that are not ours
        return prepare_requests(images), str(error)
