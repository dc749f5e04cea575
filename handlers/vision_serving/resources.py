"""What this machine gives to a worker: cores, shared with how many others, and the arithmetic of its CPU."""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from vision_serving.errors import ConfigError

Models = dict[str, dict[str, dict[str, Any]]]  # settings by name and version

CGROUP_V2_ROOT = Path("/sys/fs/cgroup")
CGROUP_V1_ROOT = Path("/sys/fs/cgroup/cpu")
OWN_CGROUPS = Path("/proc/self/cgroup")
CPUINFO = Path("/proc/cpuinfo")

DEFAULT_ANSWER_BYTES = 6_553_500  # TorchServe's own, where config.properties says nothing
DEFAULT_HEADROOM_MB = 4096
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
    """Cores that affinity and the cgroup's CPU quota leave to this process, at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = cgroup_cores()
    return max(1, affinity if quota is None else min(affinity, math.ceil(quota)))


def cgroup_cores() -> float | None:
    """The least CPU quota, in cores, from this process's cgroup (v2 or v1) up to the root; None without a limit."""
    quotas = (_read_quota(folder) for folder in _cgroup_folders())
    return min((quota for quota in quotas if quota is not None), default=None)


def _cgroup_folders() -> list[Path]:
    """In a container of its own namespace the root is the container's own cgroup, and all there is."""
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

    def __str__(self) -> str:
        return f"{self.engine} + {self.decode} decoding{', pinned' * self.pin}"


def plan_threads(cores: int, workers: int, threads: int | None = None) -> ThreadPlan:
    """The cores divided among the workers, at least 1 each; or as many threads in each as are asked for."""
    engine = threads or max(1, cores // max(1, workers))
    return ThreadPlan(engine=engine, decode=min(engine, MAX_DECODE_THREADS), pin=workers <= 1)


def configured_threads(model_name: str, version: str) -> ThreadPlan:
    """As the `config.properties` of the TorchServe that started this process says; elsewhere those of one worker.

    TorchServe tells a worker neither their count nor the file, but the file is on the command line of its parent.
    """
    path = server_config_path()
    return read_threads("" if path is None else path.read_text(encoding="utf-8"), model_name, version)


def configured_answer_bytes() -> int:
    """The longest answer that the TorchServe that started this process takes; a longer one would end its worker."""
    path = server_config_path()
    properties = {} if path is None else read_properties(path.read_text(encoding="utf-8"))
    return int(properties.get("max_response_size", DEFAULT_ANSWER_BYTES))


def read_threads(properties_text: str, model_name: str, version: str) -> ThreadPlan:
    """Of each worker of a model, on this machine: `threads` in the `models` JSON, which is ours; else a fair share.

    Raises ConfigError for `threads` that is not a number above 0.
    """
    threads = read_model(properties_text, model_name).get(version, {}).get("threads")
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        place = f"config.properties: `models`, {model_name} {version}"
        raise ConfigError(f"{place}: expected 1 or more `threads`, got {threads!r}; leave it out for a fair share")
    return plan_threads(usable_cores(), read_workers(properties_text, model_name, version), threads)


def configured_headroom_mb(model_name: str, version: str) -> int:
    """As the `config.properties` of the TorchServe that started this process says; elsewhere DEFAULT_HEADROOM_MB."""
    path = server_config_path()
    return read_headroom_mb("" if path is None else path.read_text(encoding="utf-8"), model_name, version)


def read_headroom_mb(properties_text: str, model_name: str, version: str) -> int:
    """`memory_headroom_mb` in the `models` JSON, which is ours: MiB that a worker may take beyond what its model needs.

    0: no limit. Raises ConfigError for what is no number from 0.
    """
    found = read_model(properties_text, model_name).get(version, {}).get("memory_headroom_mb", DEFAULT_HEADROOM_MB)
    if type(found) is not int or found < 0:
        place = f"config.properties: `models`, {model_name} {version}"
        raise ConfigError(f"{place}: expected `memory_headroom_mb` from 0, which is no limit, got {found!r}")
    return found


def server_config_path() -> Path | None:
    """The `--ts-config` file of the TorchServe frontend that is this process's parent."""
    parent = psutil.Process().parent()
    command: list[str] = [] if parent is None else parent.cmdline()
    if parent is None or "org.pytorch.serve.ModelServer" not in command or "-f" not in command:
        return None
    return Path(str(parent.cwd()), command[command.index("-f") + 1])


def read_workers(properties_text: str, model_name: str, version: str) -> int:
    """`minWorkers` in the `models` JSON, 1 where it names only the version; else `default_workers_per_model`, or 1."""
    found = read_model(properties_text, model_name).get(version)
    if found is None:
        return int(read_properties(properties_text).get("default_workers_per_model", 1))
    return int(found.get("minWorkers", 1))


def read_batch_size(properties_text: str, model_name: str) -> int | None:
    """`batchSize` of a model (its largest version) in the `models` JSON, None where it names none."""
    found = read_model(properties_text, model_name).values()
    return max((int(version["batchSize"]) for version in found if "batchSize" in version), default=None)


def read_model(properties_text: str, model_name: str) -> dict[str, dict[str, Any]]:
    """What the `models` JSON says of a model, by version. Raises ConfigError where it is no JSON."""
    return read_models(properties_text).get(model_name, {})


def read_models(properties_text: str) -> Models:
    """All of the `models` JSON. Raises ConfigError where it is no JSON."""
    try:
        models: Models = json.loads(read_properties(properties_text).get("models", "{}"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"config.properties: `models` is not valid JSON: {error}") from error
    return models


def read_properties(text: str) -> dict[str, str]:
    """A Java properties file: comments, `key=value`, lines continued with a backslash."""
    values: dict[str, str] = {}
    lines = [line for line in text.split("\n") if not line.lstrip().startswith(("#", "!"))]
    for line in "\n".join(lines).replace("\\\n", "").split("\n"):
        key, separator, value = line.strip().partition("=")
        if separator:
            values[key.strip()] = value.strip()
    return values


def cpu_features() -> set[str]:
    """Which of CPU_FEATURES this machine has, by the flags that Linux lists; nothing on other systems."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.is_file() else []
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return {feature for feature, names in CPU_FEATURES.items() if names & set(flags)}
