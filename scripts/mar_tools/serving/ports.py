"""Ports of this machine, and the five of a TorchServe."""

import errno
import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

import psutil

from vision_serving.worker.server_settings import read_count

LOOPBACK, ANY_HOST = "127.0.0.1", "0.0.0.0"

# Keys of config.properties, with the ports that TorchServe takes without them.
ADDRESS_KEYS = {"inference_address": 8080, "management_address": 8081, "metrics_address": 8082}
PORT_KEYS = {"grpc_inference_port": 7070, "grpc_management_port": 7071}


# Linux gives higher ones to connections and to whoever asks for any, also in the seconds until a server listens.
OWN_PORTS = range(10_000, 32_768)


def find_free_ports(count: int) -> list[int]:
    """Find different ports that nobody listens on now."""
    found: list[int] = []
    while len(found) < count:
        port = secrets.choice(OWN_PORTS)
        if port not in found and is_free(port):
            found.append(port)
    return found


def free_addresses() -> dict[str, str]:
    """Return lines of config.properties for a TorchServe beside others."""
    ports = iter(find_free_ports(len(ADDRESS_KEYS) + len(PORT_KEYS)))
    addresses = {key: f"http://{LOOPBACK}:{next(ports)}" for key in ADDRESS_KEYS}
    return addresses | {key: str(next(ports)) for key in PORT_KEYS}


def listening_places(values: Mapping[str, str]) -> dict[str, tuple[str, int]]:
    """Return host and port of the five that a config.properties sets, by their key. Raises ConfigError."""
    hosts = {key: values.get(key.replace("port", "address"), LOOPBACK) for key in PORT_KEYS}
    places = {key: (hosts[key], read_count(values, key, default, most=65535)) for key, default in PORT_KEYS.items()}
    for key, default in ADDRESS_KEYS.items():
        url = urlsplit(values.get(key, ""))
        places[key] = (url.hostname or LOOPBACK, url.port or default)
    return places


def is_free(port: int) -> bool:
    return find_obstacle(LOOPBACK, port) is None


def find_obstacle(host: str, port: int) -> str | None:
    """Return why nobody can listen there, with whose process does, as the end of a sentence. None where one can."""
    try:
        [(family, _, _, _, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"is taken by {_describe_listener(port)}"
        return f"cannot be listened on at {host}: {error.strerror}"
    return None


def _describe_listener(port: int) -> str:
    with suppress(psutil.Error):  # it has just ended, or this system tells nobody
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                process = psutil.Process(connection.pid)
                return f"process {process.pid} ({process.name()}) of user {process.username()}"
    return "a process of another user"
