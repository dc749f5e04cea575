"""How a model is served: found out, tried by a TorchServe of its own, written down, applied to a running server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mar_tools.archives.archive import check_archive
from mar_tools.load_testing.answers import open_export
from mar_tools.load_testing.served import find_served_models
from mar_tools.load_testing.targets import Target
from mar_tools.machine import memory_bytes
from mar_tools.serving.archive_choice import check_registered, register_checked
from mar_tools.serving.config_file import model_section, rewrite, with_absolute_paths, with_model, with_values
from mar_tools.serving.memory_bounds import most_waiting
from mar_tools.serving.model_status import DEFAULTS
from mar_tools.serving.server import Server
from mar_tools.serving.temporary_server import temporary_server
from mar_tools.serving.torchserve_api import ServerError
from mar_tools.tuning.rule import settings_by_rule
from mar_tools.tuning.space import Settings
from vision_serving.config import read_handler_config
from vision_serving.cores import usable_cores
from vision_serving.errors import ConfigError
from vision_serving.worker.server_settings import (
    read_count,
    read_model,
    read_properties,
    read_text,
    read_threads,
    read_workers,
)
from vision_serving.worker.service import choose_device

# An open loop shows by its latencies, not by refusals, that a server does not keep up.
WAITING_REQUESTS = 700


@dataclass(frozen=True)
class TunedModel:
    """What is tuned. properties: the text of its config.properties, with absolute paths. gpus: 0 on the CPU.

    log_settings: the log4j2.xml that `vmargs` names.
    """

    archive: Path
    name: str
    version: str
    properties: str
    gpus: int = 0
    log_settings: Path | None = None

    @classmethod
    def read(cls, archive: Path, config: Path) -> "TunedModel":
        name, version = check_archive(archive)
        folder = config.resolve().parent
        properties = with_absolute_paths(config.read_text(encoding="utf-8"), folder)
        logging = folder / "log4j2.xml"
        found = logging if logging.is_file() else None
        return cls(archive, name, version, properties, count_gpus(archive, properties), found)


def count_gpus(archive: Path, properties: str) -> int:
    """Count on how many GPUs TorchServe would serve an archive; 0 where it runs on the CPU. Raises BackendError."""
    found = torch.cuda.device_count()
    gpus = min(found, read_count(read_properties(properties), "number_of_gpu", found, least=0))
    if not gpus:
        return 0
    with open_export(archive) as folder:
        config = read_handler_config(folder / "model-config.yaml")
    return gpus if choose_device(0, config.backend, config.device_type).type == "cuda" else 0


def find_candidate(name: str, version: str | None, server: Server) -> TunedModel:
    """Return the archive that the server would load for a model. Raises ConfigError."""
    found = {archive: check_archive(archive) for archive in server.archives()}
    fitting = [archive for archive, identity in found.items() if identity[0] == name and version in (None, identity[1])]
    if len(fitting) == 1:
        return TunedModel.read(fitting[0], server.config)
    store = server.model_store()
    if fitting:
        raise ConfigError(f"{store}: {name} has versions {[found[archive][1] for archive in fitting]}; give --version")
    known = [f"{model} {number}" for model, number in found.values()]
    wanted = name if version is None else f"{name} {version}"
    raise ConfigError(f"{store}: no archive of {wanted}; it holds {known}")


def current_settings(candidate: TunedModel) -> Settings:
    """Return the settings of config.properties, or where it has none, TorchServe's own."""
    identity = (candidate.properties, candidate.name, candidate.version)
    section = {**DEFAULTS, **model_section(*identity)}
    return Settings(
        workers=max(1, read_workers(*identity)),
        threads=read_threads(*identity).engine,
        batch_size=int(section["batchSize"]),
        max_batch_delay_ms=int(section["maxBatchDelay"]),
    )


@contextmanager
def serve_trial(candidate: TunedModel, settings: Settings) -> Iterator[Target]:
    """Serve one archive by a TorchServe of its own. Raises ServerError where the model does not come up."""
    properties = trial_properties(candidate, settings)
    with temporary_server([candidate.archive], properties, candidate.log_settings) as server:
        yield find_served_models(server, [candidate.name])[0].target


def trial_properties(candidate: TunedModel, settings: Settings) -> str:
    """Return the properties of a server for this archive alone, with these settings."""
    waiting = min(WAITING_REQUESTS, most_waiting(read_properties(candidate.properties)))
    own = {"load_models": candidate.archive.name, "job_queue_size": str(waiting), "models": "{}"}
    model = {"defaultVersion": True, "marName": candidate.archive.name, **settings.as_properties()}
    return with_model(with_values(candidate.properties, own), candidate.name, candidate.version, model)


def write_settings(config: Path, candidate: TunedModel, settings: Settings) -> None:
    """Write over what `models` says of the version."""

    def change(text: str) -> str:
        model = {"defaultVersion": True, "marName": candidate.archive.name}
        section = {**model, **model_section(text, candidate.name, candidate.version), **settings.as_properties()}
        return with_model(text, candidate.name, candidate.version, section)

    rewrite(config, change)


def write_settings_by_rule(config: Path, archive: Path) -> Settings | None:
    """Write what suits this machine for an archive of the server's store that `models` does not name; return it.

    None, and nothing is written, for one that it names, and for an archive elsewhere. Another version of a model is
    served as the last one that `models` names, and does not become the default. Raises ConfigError.
    """
    candidate = TunedModel.read(archive, config)
    named = read_model(candidate.properties, candidate.name)
    if candidate.version in named or archive.resolve().parent != Server(config).model_store().resolve():
        return None
    settings = settings_by_rule(usable_cores(), memory_bytes(), candidate.gpus)
    section = {"defaultVersion": True, **settings.as_properties()}
    del section["threads"]  # a fair share: it stays right where the file comes to a machine with more cores
    if named:
        section = {**list(named.values())[-1], "defaultVersion": False}
    section["marName"] = archive.name
    try:
        rewrite(config, lambda text: with_model(text, candidate.name, candidate.version, section))
    except OSError as error:
        written = f"{archive} is there, but its settings cannot be written to {config}: {error.strerror}"
        raise ConfigError(f"{written}; name it under `models` there, or give --keep-settings") from error
    return current_settings(replace(candidate, properties=read_text(config)))


def require_applicable(server: Server, candidate: TunedModel) -> None:
    """Raises ServerError where `apply_settings` could not work, ConfigError where the archive may not be served."""
    check_registered(server.config, candidate.archive.name)
    versions = [entry.version for entry in server.status() if entry.model == candidate.name]
    if candidate.version not in versions:
        raise ServerError(
            f"--apply: the running server does not serve {candidate.name} {candidate.version}; restart it"
        )
    if len(versions) > 1:
        raise ServerError(f"--apply: TorchServe serves {candidate.name} in versions {versions}; restart it instead")


def apply_settings(server: Server, candidate: TunedModel, settings: Settings) -> None:
    """Register the model anew, which takes its workers down for the seconds of a start. Raises ServerError."""
    archive = check_registered(server.config, candidate.archive.name)
    server.client.unregister(candidate.name, candidate.version)
    try:
        register_checked(server.client, archive, settings.workers, settings.batch_size, settings.max_batch_delay_ms)
    except ServerError as error:
        lost = f"{candidate.name} is not served any more: {error}"
        raise ServerError(f"{lost}; `serve_models.py restart` brings it back") from error
