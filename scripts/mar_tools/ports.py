"""Ports of this machine, and the five of a TorchServe."""

import socket

LOOPBACK = "127.0.0.1"

# Keys of config.properties, with the ports that TorchServe takes without them.
ADDRESS_KEYS = {"inference_address": 8080, "management_address": 8081, "metrics_address": 8082}
PORT_KEYS = {"grpc_inference_port": 7070, "grpc_management_port": 7071}


def find_free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def free_addresses() -> dict[str, str]:
    """Lines of config.properties for a TorchServe beside others."""
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
