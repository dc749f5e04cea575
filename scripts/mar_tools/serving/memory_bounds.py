"""What TorchServe's memory takes: how many bytes of bodies at once, and how many bodies of each size that is."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mar_tools.machine import memory_bytes
from vision_serving.errors import ConfigError
from vision_serving.worker.server_settings import DEFAULT_BODY_BYTES, read_count

MIB = 1 << 20
DEFAULT_QUEUE = 100  # TorchServe's own
UNITS = {"": 1, "k": 1 << 10, "m": MIB, "g": 1 << 30, "t": 1 << 40}
RESERVED = 256 * MIB  # of the heap, for the frontend itself: 0.2 GB without a load
HEAP_SHARE = 2  # a body is there twice where it is a form: whole, and in parts
DIRECT_SHARE = 4  # as it comes, and as a batch on its way to a worker, in a buffer that doubles as it grows
SMALL, MEDIUM = MIB, 8 * MIB
LEAST_LARGE = 2


@dataclass(frozen=True)
class MemoryBounds:
    """How many bodies may be under way at once, over all clients: up to 1 MiB, 8 MiB and `max_request_size`."""

    small: int
    medium: int
    large: int


def read_bounds(properties: Mapping[str, str], reserved_large: int = 0) -> MemoryBounds:
    """Derive the bounds from `vmargs`, `max_request_size` and `job_queue_size` of a config.properties.

    reserved_large: large bodies to leave room for: those of explanations. Raises ConfigError where the numbers do not
    fit.
    """
    heap, direct = _read_heap(properties), _read_direct(properties)
    largest = read_count(properties, "max_request_size", DEFAULT_BODY_BYTES)
    queue = read_count(properties, "job_queue_size", DEFAULT_QUEUE)
    held = max(0, min((heap - RESERVED) // HEAP_SHARE, direct // DIRECT_SHARE))
    memory = f"-Xmx of {heap // MIB} MiB and MaxDirectMemorySize of {direct // MIB} MiB in `vmargs`"
    beside = held // largest - 3 * LEAST_LARGE
    if 0 < beside < reserved_large:
        raise ConfigError(
            f"explanations_at_once={reserved_large} does not fit {memory}, at {largest} bytes each; lower it to "
            f"{beside}, or raise both"
        )
    if beside < reserved_large:
        most = held // (3 * LEAST_LARGE + bool(reserved_large))
        raise ConfigError(
            f"max_request_size={largest} does not fit {memory}: {LEAST_LARGE} such bodies must fit a third of what "
            f"they hold; {f'lower it to {most}, or ' if most else ''}raise both"
        )
    if queue > most_waiting(properties):
        most = most_waiting(properties)
        raise ConfigError(f"job_queue_size={queue} does not fit {memory}, at 1 MiB a request; lower it to {most}")
    third = (held - reserved_large * largest) // 3
    return MemoryBounds(third // min(SMALL, largest), third // min(MEDIUM, largest), third // largest)


def most_waiting(properties: Mapping[str, str]) -> int:
    """Return how many requests may wait for a model, at 1 MiB each. Raises ConfigError."""
    return max(1, (_read_heap(properties) - RESERVED) // SMALL)


def _read_heap(properties: Mapping[str, str]) -> int:
    unread = re.search(r"-XX:M\w+RAM\w*", properties.get("vmargs", ""))
    if unread:
        raise ConfigError(f"config.properties: vmargs: expected the heap as -Xmx, got {unread[0]}")
    return _read_memory(properties, "(?:-Xmx|-XX:MaxHeapSize=)") or int(memory_bytes()) // 4  # Java's own default


def _read_direct(properties: Mapping[str, str]) -> int:
    return _read_memory(properties, "-XX:MaxDirectMemorySize=") or _read_heap(properties)


def _read_memory(properties: Mapping[str, str], option: str) -> int | None:
    """Return bytes. The last one counts, as in Java."""
    found = re.findall(rf"(?:^|\s){option}(\d+)([kmgt]?)(?=\s|$)", properties.get("vmargs", ""), re.IGNORECASE)
    return int(found[-1][0]) * UNITS[found[-1][1].lower()] if found else None
