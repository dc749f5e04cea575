"""What TorchServe's memory takes: how many bytes of bodies at once, and how many bodies of each size that is."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from vision_serving.errors import ConfigError

MIB = 1 << 20
DEFAULT_MAX_REQUEST = 6_553_500  # TorchServe's own, where config.properties says nothing
DEFAULT_QUEUE = 100
UNITS = {"": 1, "k": 1 << 10, "m": MIB, "g": 1 << 30}
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

    reserved_large: bodies of any size that others take room for. Raises ConfigError where the numbers do not fit.
    """
    heap = _read_memory(properties, "-Xmx") or psutil.virtual_memory().total // 4  # Java's own default
    direct = _read_memory(properties, "-XX:MaxDirectMemorySize=") or heap
    largest = int(properties.get("max_request_size", DEFAULT_MAX_REQUEST))
    queue = int(properties.get("job_queue_size", DEFAULT_QUEUE))
    held = min((heap - RESERVED) // HEAP_SHARE, direct // DIRECT_SHARE) - reserved_large * largest
    third = max(held, 0) // 3
    memory = f"-Xmx of {heap // MIB} MiB and MaxDirectMemorySize of {direct // MIB} MiB in `vmargs`"
    if third // largest < LEAST_LARGE:
        most = third // LEAST_LARGE
        raise ConfigError(
            f"max_request_size={largest} does not fit {memory}: {LEAST_LARGE} such bodies must fit a third of what "
            f"they hold; lower it to {most}, or raise both"
        )
    if queue * SMALL > heap - RESERVED:
        most = (heap - RESERVED) // SMALL
        raise ConfigError(f"job_queue_size={queue} does not fit {memory}, at 1 MiB a request; lower it to {most}")
    return MemoryBounds(third // min(SMALL, largest), third // min(MEDIUM, largest), third // largest)


def _read_memory(properties: Mapping[str, str], option: str) -> int | None:
    """Return bytes. The last one counts, as in Java."""
    found = re.findall(rf"(?:^|\s){option}(\d+)([kmg]?)(?=\s|$)", properties.get("vmargs", ""), re.IGNORECASE)
    return int(found[-1][0]) * UNITS[found[-1][1].lower()] if found else None
