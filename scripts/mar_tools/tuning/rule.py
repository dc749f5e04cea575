"""How a model is served that nobody has tuned yet: by a rule, from the machine alone."""

from mar_tools.tuning.space import Settings

MOST_WORKERS = 4  # of one model; each holds a copy of it, and with more cores than that a worker's threads use them
WORKER_BYTES = 1 << 30  # a PyTorch with a model of common size, and the pictures of a batch
MEMORY_SHARE = 0.5  # of the machine, for one model
WORKERS_PER_GPU = 2  # one decodes while the other one computes
BATCH_SIZE = {"cpu": 8, "cuda": 32}
DELAY_MS = {"cpu": 5, "cuda": 2}


def settings_by_rule(cores: int, memory_bytes: float, gpus: int = 0) -> Settings:
    """Return settings for many requests at a time. gpus: 0 for the CPU.

    docs/evidence/performance.md has what the rule for CPUs was measured to give. Nobody has measured that for GPUs.
    """
    device = "cuda" if gpus else "cpu"
    fitting = int(MEMORY_SHARE * memory_bytes / WORKER_BYTES)
    workers = max(1, min(gpus * WORKERS_PER_GPU if gpus else min(cores, MOST_WORKERS), fitting))
    return Settings(workers, max(1, cores // workers), BATCH_SIZE[device], DELAY_MS[device])
