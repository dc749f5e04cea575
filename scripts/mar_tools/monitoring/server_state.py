"""What the management API says of a running server, as metrics: workers, queues, versions; and of its processes."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from mar_tools.serving.model_status import READY, list_versions
from mar_tools.serving.processes import DRAIN_NAME, find_frontend
from mar_tools.serving.torchserve_api import ServerError, TorchServeClient

OF_VERSION = ("model", "version")
GAUGES = {
    "vision_worker_ready": "Workers that are ready, of a version.",
    "vision_worker_expected": "Workers that a version should have.",
    "vision_queue_length": "Requests of a version that wait for a worker.",
    "vision_queue_capacity": "Requests of a version that may wait; further ones are answered 503.",
    "vision_default_version": "1 for the version that answers requests without one, else 0.",
    "vision_worker_resident_memory_bytes": "Memory of all workers of a version.",
}


def read_versions(client: TorchServeClient) -> list[tuple[str, dict[str, Any]]]:
    """Return each version with the name of its model. Raises ServerError where no server answers in time."""
    return list(list_versions(client))


def show_server(config: Path, temporary: Path, versions: object) -> list[Metric]:
    """Return whether the server answers, since when it runs, and whether it is about to stop."""
    up = GaugeMetricFamily("vision_up", "1 while TorchServe answers its management API.")
    up.add_metric([], float(versions is not None))
    draining = GaugeMetricFamily("vision_draining", "1 while the server refuses requests because it is about to stop.")
    draining.add_metric([], float((temporary / DRAIN_NAME).exists()))
    started = GaugeMetricFamily("vision_start_time_seconds", "When TorchServe's frontend started, since 1970.")
    memory = GaugeMetricFamily("vision_frontend_resident_memory_bytes", "Memory of TorchServe's frontend.")
    with suppress(psutil.Error):
        process = find_frontend(config)
        if process is not None:
            started.add_metric([], process.create_time())
            memory.add_metric([], process.memory_info().rss)
    return [up, draining, started, memory]


def show_versions(client: TorchServeClient, versions: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Metric]:
    """Return what there is of each version. Raises ServerError where the server no longer answers."""
    families = {name: GaugeMetricFamily(name, text, labels=OF_VERSION) for name, text in GAUGES.items()}
    defaults: dict[str, str] = {}
    for model, entry in versions:
        if model not in defaults:
            with suppress(ServerError):  # it was unregistered meanwhile
                defaults[model] = client.describe_default(model)["modelVersion"]
        version, workers = entry["modelVersion"], entry["workers"]
        queue = entry.get("jobQueueStatus", {})
        waiting = queue.get("pendingRequests", 0)
        values = {
            "vision_worker_ready": sum(worker["status"] == READY for worker in workers),
            "vision_worker_expected": entry["minWorkers"],
            "vision_queue_length": waiting,
            "vision_queue_capacity": waiting + queue.get("remainingCapacity", 0),
            "vision_default_version": defaults.get(model) == version,
            "vision_worker_resident_memory_bytes": sum(_held_bytes(worker["pid"]) for worker in workers),
        }
        for name, value in values.items():
            families[name].add_metric((model, version), float(value))
    return list(families.values())


def _held_bytes(pid: int) -> int:
    if pid <= 0:  # of a worker that is being started
        return 0
    with suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0
