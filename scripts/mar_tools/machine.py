"""What kind of machine this is, and what it has."""

import platform
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from vision_serving.config import DeviceType
from vision_serving.cores import usable_cores
from vision_serving.errors import ConfigError

MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def describe_machine() -> dict[str, Any]:
    """Return what a measured number means nothing without."""
    return {
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "architecture": platform.machine(),
        "memory_gb": round(memory_bytes() / 1e9, 1),
    }


def cpu_name() -> str:
    """Return the model name of the CPU, as Linux gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        return platform.processor() or "unknown"
    lines = cpuinfo.read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def memory_bytes(device_type: DeviceType = "cpu") -> float:
    """Return what the machine, the container's limit and, where models run there, the GPU allow: the least of them."""
    limits = [path.read_text().strip() for path in MEMORY_LIMITS if path.is_file()]
    found = [float(psutil.virtual_memory().total), *(float(limit) for limit in limits if limit.isdigit())]
    if device_type == "cuda":
        import torch  # here, as all else needs none

        found.append(float(torch.cuda.get_device_properties(0).total_memory))
    return min(found)


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of those that are installed."""
    versions = {}
    for name in names:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def choose_device_type(asked: DeviceType | None) -> DeviceType:
    """Return what `--device` asks for, else a GPU where there is one. Raises ConfigError where PyTorch finds none."""
    import torch

    found: DeviceType = "cuda" if torch.cuda.is_available() else "cpu"
    if asked == "cuda" and found != "cuda":
        raise ConfigError("--device cuda: PyTorch finds no GPU that it can use here; leave the option out")
    return asked or found
