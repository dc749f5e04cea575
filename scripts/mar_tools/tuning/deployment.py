"""How a model is served: found out, written to config.properties, applied to a running server."""

import os
from dataclasses import dataclass
from pathlib import Path

from mar_tools.archive import check_archive
from mar_tools.drift import DEFAULTS
from mar_tools.properties_file import model_section, with_model
from mar_tools.server import Server
from mar_tools.torchserve_api import ServerError
from mar_tools.tuning.space import Settings
from vision_serving.errors import ConfigError
from vision_serving.resources import read_threads, read_workers


@dataclass(frozen=True)
class Candidate:
    """What is tuned. properties: the text of the config.properties that it will be served with."""

    archive: Path
    name: str
    version: str
    properties: str

    @classmethod
    def read(cls, archive: Path, config: Path) -> "Candidate":
        name, version = check_archive(archive)
        return cls(archive, name, version, config.read_text(encoding="utf-8"))


def find_candidate(name: str, version: str | None, config: Path) -> Candidate:
    """The archive of the model store that holds the model. Raises ConfigError."""
    store = Server(config).model_store()
    found = {archive: check_archive(archive) for archive in sorted(store.glob("*.mar"))}
    fitting = [archive for archive, identity in found.items() if identity[0] == name and version in (None, identity[1])]
    if len(fitting) == 1:
        return Candidate.read(fitting[0], config)
    if fitting:
        raise ConfigError(f"{store}: {name} has versions {[found[archive][1] for archive in fitting]}; give --version")
    known = [f"{model} {number}" for model, number in found.values()]
    raise ConfigError(f"{store}: no archive of {name} {version or ''}; it holds {known}")


def current_settings(candidate: Candidate) -> Settings:
    """As config.properties has them, or as TorchServe takes them without."""
    text = candidate.properties
    section = {**DEFAULTS, **model_section(text, candidate.name, candidate.version)}
    return Settings(
        workers=max(1, read_workers(text, candidate.name)),
        threads=read_threads(text, candidate.name).engine,
        batch_size=int(section["batchSize"]),
        max_batch_delay_ms=int(section["maxBatchDelay"]),
    )


def write_settings(config: Path, candidate: Candidate, settings: Settings) -> None:
    """Into the file as it is now, whole or not at all."""
    text = config.read_text(encoding="utf-8")
    model = {"defaultVersion": True, "marName": candidate.archive.name}
    section = {**model, **model_section(text, candidate.name, candidate.version)}
    written = config.with_name(f".{config.name}.new")
    written.write_text(
        with_model(text, candidate.name, candidate.version, {**section, **settings.as_properties()}), encoding="utf-8"
    )
    os.replace(written, config)


def apply_settings(server: Server, candidate: Candidate, settings: Settings) -> None:
    """Register the model anew, which takes its workers down for the seconds of a start. Raises ServerError."""
    parameters = {
        "initial_workers": str(settings.workers),
        "batch_size": str(settings.batch_size),
        "max_batch_delay": str(settings.max_batch_delay_ms),
        "synchronous": "true",
    }
    served = [entry.version for entry in server.status() if entry.model == candidate.name]
    if candidate.version not in served:
        raise ServerError(f"the running server does not serve {candidate.name} {candidate.version}; restart it")
    server.client.unregister(candidate.name, candidate.version)
    server.client.register(candidate.archive.name, parameters)
