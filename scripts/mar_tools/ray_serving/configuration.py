"""config.properties and its archives -> a configuration of Ray Serve, as `serve deploy` takes it too."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mar_tools.archives.archive import Archive
from mar_tools.ray_serving.models import DEPLOYMENT, INGRESS
from mar_tools.serving.archive_choice import choose_archives, file_name
from vision_serving.errors import ConfigError
from vision_serving.validation import load_yaml
from vision_serving.worker.server_settings import (
    DEFAULT_BODY_BYTES,
    read_count,
    read_model,
    read_properties,
    read_text,
    read_workers,
)

HERE = "mar_tools.ray_serving.application"
INGRESS_APPLICATION = "vision"
DEFAULT_BATCH_SIZE, DEFAULT_BATCH_DELAY_MS = 1, 100  # TorchServe's own
DEFAULT_QUEUE = 100
DEFAULT_RESPONSE_TIMEOUT_S = 120
GRACE_S = 10.0  # beyond a model's responseTimeout, for the way and the queue


@dataclass(frozen=True)
class Deployment:
    """A version of a model as it is deployed. model: the name that it is served by. replicas: least and most."""

    archive: Archive
    model: str
    batch_size: int
    max_batch_delay_ms: int
    replicas: tuple[int, int]
    response_timeout_s: int
    on_gpu: bool
    is_default: bool

    @property
    def version(self) -> str:
        return self.archive.identity[1]

    @property
    def application(self) -> str:
        return f"{self.model}-{self.version}"


@dataclass(frozen=True)
class ServePlan:
    """document: the configuration. left_out: why an archive is not served, by its name."""

    document: dict[str, Any]
    deployments: tuple[Deployment, ...]
    left_out: dict[str, str]

    @property
    def most_replicas(self) -> int:
        return sum(deployment.replicas[1] for deployment in self.deployments)


def plan_serving(config: Path, listen: tuple[str, int], keys: Path | None) -> ServePlan:
    """Check the archives that config.properties names, signatures too where it asks for them, and plan their serving.

    listen: host and port. keys: a file of client keys. Raises ConfigError.
    """
    config, properties = config.resolve(), read_text(config)
    choice = choose_archives(config)
    left_out, deployments = dict(choice.left_out), []
    checked = {archive.path.name: archive for archive in choice.checked}
    for entry in choice.served:
        archive = checked[file_name(entry)]
        if archive.is_ours:
            name = entry.partition("=")[0].strip() if "=" in entry else archive.identity[0]
            deployments.append(read_deployment(archive, name, properties))
        else:
            left_out[archive.path.name] = f"{archive.path}: only archives of build_model.py run without TorchServe"
    if not deployments:
        raise ConfigError("; ".join(dict.fromkeys(left_out.values())) or f"{config}: names no archive to serve")
    values = read_properties(properties)
    most_bytes = read_count(values, "max_request_size", DEFAULT_BODY_BYTES)
    document = {
        "proxy_location": "HeadOnly",
        "http_options": {"host": listen[0], "port": listen[1]},
        "applications": [
            *(build_model_application(each, config, read_queue(properties)) for each in deployments),
            build_ingress_application(deployments, keys, most_bytes),
        ],
    }
    return ServePlan(document, tuple(deployments), left_out)


def read_deployment(archive: Archive, model: str, properties: str) -> Deployment:
    """Read what config.properties and the archive say of its serving. Raises ConfigError."""
    version = archive.identity[1]
    found = read_model(properties, model).get(version, {})
    least = max(1, read_workers(properties, model, version))
    most = max(least, int(found.get("maxWorkers", least)))
    document = load_yaml(archive.read_document("model-config.yaml"))
    settings = document if isinstance(document, dict) else {}
    return Deployment(
        archive=archive,
        model=model,
        batch_size=int(found.get("batchSize", DEFAULT_BATCH_SIZE)),
        max_batch_delay_ms=int(found.get("maxBatchDelay", DEFAULT_BATCH_DELAY_MS)),
        replicas=(least, most),
        response_timeout_s=int(settings.get("responseTimeout", DEFAULT_RESPONSE_TIMEOUT_S)),
        on_gpu=settings.get("handler", {}).get("device_type") == "cuda",
        is_default=bool(found.get("defaultVersion")),
    )


def read_queue(properties: str) -> int:
    """Return how many requests of a model may wait."""
    return read_count(read_properties(properties), "job_queue_size", DEFAULT_QUEUE)


def build_model_application(deployment: Deployment, config: Path, queue: int) -> dict[str, Any]:
    archive, (least, most) = deployment.archive, deployment.replicas
    return {
        "name": deployment.application,
        "route_prefix": None,
        "import_path": f"{HERE}:model",
        "args": {
            "archive": str(archive.path.resolve()),
            "sha256": archive.sha256,
            "model": deployment.model,
            "version": deployment.version,
            "config": str(config),
            "batch_size": deployment.batch_size,
            "max_batch_delay_ms": deployment.max_batch_delay_ms,
        },
        "deployments": [
            {
                "name": DEPLOYMENT,
                "max_ongoing_requests": 2 * deployment.batch_size,  # a batch that runs, and the next one
                "max_queued_requests": queue,
                "autoscaling_config": {
                    "min_replicas": least,
                    "max_replicas": most,
                    "target_ongoing_requests": deployment.batch_size,
                },
                "graceful_shutdown_timeout_s": deployment.response_timeout_s + GRACE_S,
                "ray_actor_options": {"num_cpus": 1, "num_gpus": int(deployment.on_gpu)},
            }
        ],
    }


def build_ingress_application(deployments: list[Deployment], keys: Path | None, most_bytes: int) -> dict[str, Any]:
    slowest = max(deployment.response_timeout_s for deployment in deployments)
    return {
        "name": INGRESS_APPLICATION,
        "route_prefix": "/",
        "import_path": f"{HERE}:ingress",
        "args": {
            "keys": str(keys.resolve()) if keys else None,
            "max_body_bytes": most_bytes,
            "answer_timeout_s": slowest + GRACE_S,
        },
        "deployments": [{"name": INGRESS, "user_config": {"models": list_models(deployments)}}],
    }


def list_models(deployments: list[Deployment]) -> dict[str, Any]:
    """Return the versions of each model and its default: the one that is named so, else the first."""
    models: dict[str, Any] = {}
    for deployment in deployments:
        entry = models.setdefault(deployment.model, {"default": deployment.version, "versions": {}})
        entry["versions"][deployment.version] = deployment.application
        if deployment.is_default:
            entry["default"] = deployment.version
    return models
