"""A cluster of Ray: one of this machine alone that ends with this process, or one that is there."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mar_tools.command_line import ROOT
from mar_tools.terminal import print_line
from vision_serving.cores import usable_cores
from vision_serving.errors import VisionServingError

LOOPBACK = "127.0.0.1"
STORE_BYTES = 512 * 1024**2  # for archives and shards on their way
# Without it Ray takes 127.0.0.1 for the machine's address to others, and listens there. The name tells half of it.
STAYS_HERE = ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
WITH_TOKEN = ("RAY_AUTH_MODE", "token")  # as Ray itself sets it for a cluster that it starts for one process
CODE = ("handlers", "scripts", "client")
CONNECT_S = 10.0
TRIES = 3
SHARE = 0.9  # of a core that a process asks for: the rest is for what Ray itself runs


class ClusterError(VisionServingError):
    """Ray is missing, no cluster answers, or it has no room; the message says which."""


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to. cores, gpus: of all its machines. address: of its head."""

    ray: Any
    address: str
    cores: int
    gpus: int


def load_ray() -> Any:
    """Raises ClusterError where Ray is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before the import: nothing is told to others
    try:
        import ray
    except ImportError as error:
        raise ClusterError(
            "Ray is not installed; run pip install -c constraints.txt -r requirements/ray.txt"
        ) from error
    return ray


@contextmanager
def connect(address: str | None, cores: int | None = None, ships_code: bool = True) -> Iterator[Cluster]:
    """Connect to the cluster of an address, `auto` for the one of this machine; None starts one for this process.

    cores: that a started one deals out, by default those of the machine. ships_code: whether the machines of a cluster
    get our code from here; else it is installed there. Raises ClusterError.
    """
    if address is None or address.startswith(LOOPBACK):
        os.environ.setdefault(*STAYS_HERE)
    if address is not None and address.startswith(LOOPBACK) and not ships_code:
        os.environ.setdefault(*WITH_TOKEN)
    ray = load_ray()
    if address is not None:
        require_listening(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        # A core more than there is: without one to spare, a task of Ray's own would wait for ever.
        local = {"num_cpus": (cores or usable_cores()) + 1, "include_dashboard": False, "_node_ip_address": LOOPBACK}
        # Without "local" Ray would take a cluster that happens to run on this machine.
        options |= {"address": "local", **local, "object_store_memory": STORE_BYTES}
    elif not ships_code:
        options["address"] = address
    else:
        environment = {"PYTHONPATH": os.pathsep.join(CODE)}
        options |= {"address": address, "runtime_env": {"working_dir": str(ROOT), "env_vars": environment}}
        options["runtime_env"]["excludes"] = [f"/{name.name}" for name in ROOT.iterdir() if name.name not in CODE]
    _start(ray, options, address)
    try:
        resources = ray.cluster_resources()
        spare = 1 if address is None else 0
        address = str(ray.get_runtime_context().gcs_address)
        yield Cluster(ray, address, int(resources.get("CPU", 0)) - spare, int(resources.get("GPU", 0)))
    finally:
        ray.shutdown()


def require_listening(address: str) -> None:
    """Raises ClusterError where nothing listens at a stated address; Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdecimal():  # `auto`, which Ray looks up
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise ClusterError(f"no cluster of Ray answers at {address}: {error.strerror or error}") from error


def _start(ray: Any, options: dict[str, Any], address: str | None) -> None:
    """Start or connect, on a busy machine more than once: Ray gives up after a fixed time. Raises ClusterError."""
    for number in range(1, TRIES + 1):
        try:
            ray.init(**options)
            return
        except Exception as error:  # Ray raises Exception itself where a part has not started in its fixed time
            ray.shutdown()
            if number == TRIES or (address is not None and not isinstance(error, TimeoutError)):
                what = "cannot start Ray" if address is None else f"no cluster of Ray answers at {address}"
                raise ClusterError(f"{what}: {' '.join(str(error).split())[:300]}") from error
            print_line("Ray has not started in its 30 s; trying again")
