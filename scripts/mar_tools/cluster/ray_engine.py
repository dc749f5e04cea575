"""Chunks -> shards by processes of a cluster. This process shares out the work, and writes what comes back.

It is the engine of one machine with other workers, so that chunks, retries, shards and rows are the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from mar_tools.cluster.connecting import Cluster, ClusterError, connect
from mar_tools.cluster.ray_worker import RayJob, RayWorker
from mar_tools.predicting.local_engine import Plan
from mar_tools.predicting.recording import Recorded, Recording, count_items, read_archive, record
from mar_tools.predicting.trial import Engine


@contextmanager
def record_on_ray(
    recording: Recording, archive: Path, address: str | None, processes: int | None, batch_size: int | None
) -> Iterator[Recorded]:
    """Predict with an archive on a cluster. Raises ConfigError, ClusterError, LocalEngineError or OSError."""
    with connect(address) as cluster, read_archive(archive) as (_, origin, config):
        on_gpu = config.device_type == "cuda"
        plan = Plan(choose_processes(cluster, processes, on_gpu), 1)
        content = cluster.ray.put(archive.read_bytes())
        job = RayJob(content, origin, config.task, recording.options, on_gpu)
        counter = count_items(recording)
        engine = Engine(
            [plan],
            partial(RayWorker, cluster, job, form=recording.form),
            origin,
            config.task,
            batch_size,
            recording.check,
            lambda: counter.total,
        )
        with record(recording, {"task": config.task, **origin._asdict()}, engine.predict, counter) as recorded:
            yield recorded


def choose_processes(cluster: Cluster, processes: int | None, on_gpu: bool) -> int:
    """Return how many processes the cluster has room for. Raises ClusterError where it has not for those asked."""
    room, what = (cluster.gpus, "GPUs") if on_gpu else (cluster.cores, "cores")
    if room < (processes or 1):
        raise ClusterError(f"--processes {processes or 1}: the cluster has {room} {what}, and each process needs one")
    return processes or room
