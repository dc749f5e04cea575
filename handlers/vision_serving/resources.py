"""How many cores this process may use, and how many workers it shares them with."""

import json
import math
import os
from pathlib import Path

import psutil

from vision_serving.errors import ConfigError

CGROUP_V2_QUOTA = Path("/sys/fs/cgroup/cpu.max")
CGROUP_V1_QUOTA = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
CGROUP_V1_PERIOD = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def usable_cores() -> int:
    """Cores that affinity and the cgroup's CPU quota leave to this process, at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = cgroup_cores()
    return max(1, affinity if quota is None else min(affinity, math.ceil(quota)))


def cgroup_cores() -> float | None:
    """The CPU quota of this container in cores (cgroup v2 or v1), None where there is no limit."""
    if CGROUP_V2_QUOTA.is_file():
        quota, period = CGROUP_V2_QUOTA.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    if CGROUP_V1_QUOTA.is_file() and CGROUP_V1_PERIOD.is_file():
        quota_us = int(CGROUP_V1_QUOTA.read_text())
        return None if quota_us <= 0 else quota_us / int(CGROUP_V1_PERIOD.read_text())
    return None


def threads_per_worker(workers: int) -> int:
    """Usable cores divided among the workers, at least 1 each."""
    return max(1, usable_cores() // max(1, workers))


def configured_workers(model_name: str) -> int:
    """Workers of this model, as the `config.properties` of the TorchServe that started this process says; 1 elsewhere.

    TorchServe tells a worker neither its count nor the file, but the file is on the command line of its parent.
    """
    path = server_config_path()
    return 1 if path is None else read_workers(path.read_text(encoding="utf-8"), model_name)


def server_config_path() -> Path | None:
    """The `--ts-config` file of the TorchServe frontend that is this process's parent."""
    parent = psutil.Process().parent()
    command: list[str] = [] if parent is None else parent.cmdline()
    if parent is None or "org.pytorch.serve.ModelServer" not in command or "-f" not in command:
        return None
    return Path(str(parent.cwd()), command[command.index("-f") + 1])


def read_workers(properties_text: str, model_name: str) -> int:
    """`minWorkers` of a model (its largest version) in the `models` JSON, else `default_workers_per_model`, else 1."""
    values = read_properties(properties_text)
    try:
        models = json.loads(values.get("models", "{}"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"config.properties: `models` is not valid JSON: {error}") from error
    counts = [int(version.get("minWorkers", 1)) for version in models.get(model_name, {}).values()]
    return max(counts, default=int(values.get("default_workers_per_model", 1)))


def read_properties(text: str) -> dict[str, str]:
    """A Java properties file: comments, `key=value`, lines continued with a backslash."""
    values: dict[str, str] = {}
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("#", "!"))]
    for line in "\n".join(lines).replace("\\\n", "").splitlines():
        key, separator, value = line.strip().partition("=")
        if separator:
            values[key.strip()] = value.strip()
    return values
