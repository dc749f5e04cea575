"""Ports of this machine, and the five of a TorchServe."""

import secrets
import socket

LOOPBACK = "127.0.0.1"

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


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
