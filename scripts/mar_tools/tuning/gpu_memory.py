"""What workers take of a GPU's memory: what does not fit need not be tried, and would end in the middle of its load."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mar_tools.asking import AskedProcess, ProcessLostError, start_asked_process
from mar_tools.building.timing import PROCESS, Round, TimingJob
from mar_tools.load_testing.answers import open_export
from mar_tools.tuning.space import Settings
from vision_serving.errors import ConfigError

USED_SHARE = 0.75  # of what is free: allocators keep pieces that fit nothing, and other pictures may take more
BATCH_SIZES = (1, 8, 32)
PICTURES = 4  # in turn, in a batch of any size
MIB = 2**20
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class GpuMemory:
    """In MiB: what was free before, what a worker takes with its model, and what each image of a batch adds."""

    free: float
    worker: float
    image: float

    def refuse(self, settings: Settings, gpus: int) -> str:
        """Return why these settings do not fit on as many GPUs, which share the workers evenly; empty where they do."""
        workers = -(-settings.workers // gpus)
        needed, room = workers * (self.worker + self.image * settings.batch_size), USED_SHARE * self.free
        if needed <= room:
            return ""
        return (
            f"not tried: {workers} workers on a GPU with batches of {settings.batch_size} take about {needed:.0f} MiB, "
            f"and {room:.0f} may be used"
        )


def measure_gpu_memory(archive: Path, images: Sequence[bytes]) -> GpuMemory:
    """Load an archive on the first GPU as a worker does, and let it predict batches. Raises ConfigError."""
    with open_export(archive) as export, tempfile.TemporaryDirectory(prefix="gpu-memory-") as folder:
        pictures = []
        for number, encoded in enumerate(images[:PICTURES]):
            pictures.append(Path(folder) / f"{number}.picture")
            pictures[-1].write_bytes(encoded)
        job = TimingJob(folder=export, images=tuple(pictures))
        with start_asked_process(PROCESS, Path(folder) / "worker.log", TIMEOUT_S) as worker:
            return measure_worker(worker, job, read_free_mib)


def measure_worker(worker: AskedProcess, job: TimingJob, read_free: Callable[[], float]) -> GpuMemory:
    """Return what a worker takes. read_free: MiB of the device. Each runtime keeps the most that it ever needed.

    A batch that finds no room is predicted in halves, so the batch that showed the most for each image counts.
    """
    free = read_free()
    try:
        worker.ask(job.model_dump(mode="json"))
        loaded, image = read_free(), 0.0
        for size in BATCH_SIZES:
            worker.ask(Round(batch_size=size, duration_s=0).model_dump())
            image = max(image, (loaded - read_free()) / size)
    except ProcessLostError as error:
        raise ConfigError(f"the archive cannot be served on the GPU: {error}") from error
    return GpuMemory(free, free - loaded, image)


def read_free_mib() -> float:
    """Return what is free on the first GPU, whoever holds the rest."""
    return torch.cuda.mem_get_info(0)[0] / MIB
