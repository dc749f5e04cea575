"""What this machine gives to a process: its cores, and the arithmetic of its CPU."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

CGROUP_V2_ROOT = Path("/sys/fs/cgroup")


CGROUP_V1_ROOT = Path("/sys/fs/cgroup/cpu")


OWN_CGROUPS = Path("/proc/self/cgroup")


CPUINFO = Path("/proc/cpuinfo")


MAX_DECODE_THREADS = 8  # a batch has seldom more images


# For the environment of whatever computes. OpenMP's threads sleep while they wait for each other: spinning, they take
# the cores from whom they wait for, and on a machine that does anything else PyTorch becomes ten times slower and more.
WAIT_POLICY = {"OMP_WAIT_POLICY": "PASSIVE"}


# What the numbers of an artifact can depend on -> the kernel's names for it, any of which will do. Without `vnni`
# (dot products of int8 that cannot overflow) the sums of an int8 model saturate on x86, and its accuracy falls.
CPU_FEATURES = {
    "avx2": {"avx2"},
    "avx512": {"avx512f"},
    "vnni": {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"},
    "bf16": {"avx512_bf16", "amx_bf16", "bf16"},
}


def usable_cores() -> int:
    """Return the cores that affinity and the cgroup's CPU quota leave to this process, at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = cgroup_cores()
    return max(1, affinity if quota is None else min(affinity, math.ceil(quota)))


def cgroup_cores() -> float | None:
    """Return the least CPU quota, in cores, from this process's cgroup (v2 or v1) up to the root.

    None without a limit.
    """
    quotas = (_read_quota(folder) for folder in _cgroup_folders())
    return min((quota for quota in quotas if quota is not None), default=None)


def _cgroup_folders() -> list[Path]:
    """List the cgroup's folders. In a container of its own namespace the root is the container's own cgroup."""
    folders = [CGROUP_V2_ROOT, CGROUP_V1_ROOT]
    lines = OWN_CGROUPS.read_text().splitlines() if OWN_CGROUPS.is_file() else []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        root = CGROUP_V2_ROOT if not controllers else CGROUP_V1_ROOT if "cpu" in controllers.split(",") else None
        if root is not None:
            own = root / path.lstrip("/")
            folders += [folder for folder in (own, *own.parents) if folder.is_relative_to(root)]
    return folders


def _read_quota(folder: Path) -> float | None:
    v2, v1_quota, v1_period = folder / "cpu.max", folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us"
    if v2.is_file():
        quota, period = v2.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    if v1_quota.is_file() and v1_period.is_file() and int(v1_quota.read_text()) > 0:
        return int(v1_quota.read_text()) / int(v1_period.read_text())
    return None


@dataclass(frozen=True)
class ThreadPlan:
    """Of one worker. engine: threads of its runtime. decode: images decoded at a time, while the engine waits.

    pin: whether the runtime ties each thread to a core, which it may where no other worker does the same.
    """

    engine: int
    decode: int
    pin: bool


def plan_threads(cores: int, workers: int, threads: int | None = None) -> ThreadPlan:
    """Return the cores divided among the workers, at least 1 each; or as many threads in each as are asked for."""
    engine = threads or max(1, cores // max(1, workers))
    return ThreadPlan(engine=engine, decode=min(engine, MAX_DECODE_THREADS), pin=workers <= 1)


def cpu_features() -> set[str]:
    """Return which of CPU_FEATURES this machine has, by the flags that Linux lists; nothing on other systems."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.is_file() else []
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return {feature for feature, names in CPU_FEATURES.items() if names & set(flags)}
