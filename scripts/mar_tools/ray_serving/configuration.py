"""config.properties and its archives -> a configuration of Ray Serve, as `serve deploy` takes it too."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mar_tools.archives.archive import Archive
from mar_tools.ray_serving.names import DEPLOYMENT, INGRESS, INGRESS_APPLICATION, SHELF, SHELF_APPLICATION
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
DEFAULT_BATCH_SIZE, DEFAULT_BATCH_DELAY_MS = 1, 100  # TorchServe's own
DEFAULT_QUEUE = 100
DEFAULT_RESPONSE_TIMEOUT_S = 120
GRACE_S = 10.0  # beyond a model's responseTimeout, for the way and the queue


@dataclass(frozen=True)
class Deployment:
    """A version of a model as it is deployed. model: the name that it is served by.

    replicas: least and most; none at all is an archive that is loaded when it is asked for, on the shelf.
    """

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
    def is_on_demand(self) -> bool:
        return self.replicas == (0, 0)

    @property
    def application(self) -> str:
        return f"{self.model}-{self.version}"


class Ingresses(NamedTuple):
    """number: of processes that listen. apart: each on a machine of its own; else they share the port of one."""

    number: int = 1
    apart: bool = False


ONE_INGRESS = Ingresses()


@dataclass(frozen=True)
class ServePlan:
    """document: the configuration. listen: host and port. left_out: why an archive is not served, by its name."""

    document: dict[str, Any]
    listen: tuple[str, int]
    deployments: tuple[Deployment, ...]
    left_out: dict[str, str]

    @property
    def answer_timeout_s(self) -> float:
        return find_answer_timeout_s(self.deployments)

    @property
    def most_replicas(self) -> int:
        """Return how many processes of a core there may be: replicas, and the one that loads archives on demand."""
        shelves = int(any(deployment.is_on_demand for deployment in self.deployments))
        return sum(deployment.replicas[1] for deployment in self.deployments) + shelves


def plan_serving(
    config: Path,
    listen: tuple[str, int],
    keys: Path | None,
    ingresses: Ingresses = ONE_INGRESS,
    on_demand_bytes: int = 0,
) -> ServePlan:
    """Check the archives that config.properties names, signatures too where it asks for them, and plan their serving.

    listen: host and port. keys: a file of client keys. on_demand_bytes: memory of what is loaded on demand.
    Raises ConfigError.
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
    document = {
        "proxy_location": "Disabled",  # the ingress listens itself
        "applications": [
            *(build_model_application(each, config) for each in deployments if not each.is_on_demand),
            *build_shelf(deployments, config, on_demand_bytes),
            build_ingress_application(deployments, listen, keys, properties, ingresses),
        ],
    }
    return ServePlan(document, listen, tuple(deployments), left_out)


def read_deployment(archive: Archive, model: str, properties: str) -> Deployment:
    """Read what config.properties and the archive say of its serving. Raises ConfigError."""
    version = archive.identity[1]
    found = read_model(properties, model).get(version, {})
    is_on_demand = str(found.get("minWorkers")) == "0"
    least = 0 if is_on_demand else max(1, read_workers(properties, model, version))
    most = 0 if is_on_demand else max(least, int(found.get("maxWorkers", least)))
    document = load_yaml(archive.read_document("model-config.yaml"))
    settings = document if isinstance(document, dict) else {}
    on_gpu = settings.get("handler", {}).get("device_type") == "cuda"
    if is_on_demand and on_gpu:
        raise ConfigError(f"{model} {version}: minWorkers is 0, and only archives for CPUs are loaded on demand; set 1")
    return Deployment(
        archive=archive,
        model=model,
        batch_size=int(found.get("batchSize", DEFAULT_BATCH_SIZE)),
        max_batch_delay_ms=int(found.get("maxBatchDelay", DEFAULT_BATCH_DELAY_MS)),
        replicas=(least, most),
        response_timeout_s=int(settings.get("responseTimeout", DEFAULT_RESPONSE_TIMEOUT_S)),
        on_gpu=on_gpu,
        is_default=bool(found.get("defaultVersion")),
    )


def read_queue(properties: str) -> int:
    """Return how many requests of a model may wait."""
    return read_count(read_properties(properties), "job_queue_size", DEFAULT_QUEUE)


def build_model_application(deployment: Deployment, config: Path) -> dict[str, Any]:
    least, most = deployment.replicas
    return {
        "name": deployment.application,
        "route_prefix": None,
        "import_path": f"{HERE}:model",
        "args": build_spec(deployment, config),
        "deployments": [
            {
                "name": DEPLOYMENT,
                "autoscaling_config": {
                    "min_replicas": least,
                    "max_replicas": most,
                    "target_ongoing_requests": deployment.batch_size,
                    "policy": {"policy_function": f"{HERE}:scale"},
                },
                "graceful_shutdown_timeout_s": deployment.response_timeout_s + GRACE_S,
                "ray_actor_options": {"num_cpus": 1, "num_gpus": int(deployment.on_gpu)},
            }
        ],
    }


def build_spec(deployment: Deployment, config: Path) -> dict[str, Any]:
    """Return the fields of a Spec."""
    return {
        "archive": str(deployment.archive.path.resolve()),
        "sha256": deployment.archive.sha256,
        "model": deployment.model,
        "version": deployment.version,
        "config": str(config),
        "batch_size": deployment.batch_size,
        "max_batch_delay_ms": deployment.max_batch_delay_ms,
    }


def build_shelf(deployments: list[Deployment], config: Path, memory_bytes: int) -> list[dict[str, Any]]:
    """Return the application that loads archives on demand, none where there are no such archives."""
    archives = {each.application: build_spec(each, config) for each in deployments if each.is_on_demand}
    if not archives:
        return []
    deployment = {
        "name": SHELF,
        "user_config": {"archives": archives},
        "graceful_shutdown_timeout_s": find_answer_timeout_s(deployments),
        "ray_actor_options": {"num_cpus": 1},
    }
    return [
        {
            "name": SHELF_APPLICATION,
            "route_prefix": None,
            "import_path": f"{HERE}:shelf",
            "args": {"memory_bytes": memory_bytes},
            "deployments": [deployment],
        }
    ]


def build_ingress_application(
    deployments: list[Deployment],
    listen: tuple[str, int],
    keys: Path | None,
    properties: str,
    ingresses: Ingresses,
) -> dict[str, Any]:
    timeout_s = find_answer_timeout_s(deployments)
    return {
        "name": INGRESS_APPLICATION,
        "route_prefix": None,
        "import_path": f"{HERE}:ingress",
        "args": {
            "listen": list(listen),
            "keys": str(keys.resolve()) if keys else None,
            "max_body_bytes": read_count(read_properties(properties), "max_request_size", DEFAULT_BODY_BYTES),
            "answer_timeout_s": timeout_s,
        },
        "deployments": [
            {
                "name": INGRESS,
                "user_config": {"models": list_models(deployments, read_queue(properties))},
                "num_replicas": ingresses.number,
                **({"max_replicas_per_node": 1} if ingresses.apart else {}),
                "graceful_shutdown_timeout_s": timeout_s + GRACE_S,
            }
        ],
    }


def find_answer_timeout_s(deployments: Sequence[Deployment]) -> float:
    """Return how long an ingress waits for an answer: as long as the slowest model may take, and some."""
    return max(deployment.response_timeout_s for deployment in deployments) + GRACE_S


def list_models(deployments: list[Deployment], queue: int) -> dict[str, Any]:
    """Return the versions of each model and its default: the one that is named so, else the first. queue: of each."""
    models: dict[str, Any] = {}
    for deployment in deployments:
        entry = models.setdefault(deployment.model, {"default": deployment.version, "versions": {}})
        room = 2 * deployment.batch_size  # a batch that runs, and the next one
        settings = {"application": deployment.application, "room": room, "queue": queue}
        entry["versions"][deployment.version] = {**settings, "on_demand": deployment.is_on_demand}
        if deployment.is_default:
            entry["default"] = deployment.version
    return models
