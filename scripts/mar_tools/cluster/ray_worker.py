"""A process of the cluster that has an archive loaded, and its handle in the process that shares out the work.

What goes wrong with a picture is its row; the process never raises for one. A process that is lost is told as
ProcessLostError, as the engine of one machine tells it.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mar_tools.archives.archive import extract_archive
from mar_tools.asking import ProcessLostError
from mar_tools.cluster.connecting import SHARE, Cluster
from mar_tools.predicting.chunks import Chunk, ChunkPredictor, Written, freeze_objects
from mar_tools.predicting.inputs import Item
from mar_tools.predicting.local_engine import LocalEngineError, Plan, WorkerGoneError
from mar_tools.predicting.rows import Answer, Origin
from mar_tools.predicting.shards import write_synced
from mar_tools.verification.observations import load_handler
from vision_serving.cores import plan_threads, usable_cores
from vision_serving.errors import VisionServingError

START_S = 300.0  # to find room, to get the code and the archive, and to load the model
RESTART_S = 30.0  # after a loss: others do the work meanwhile
CHUNK_S = 600.0


@dataclass(frozen=True)
class RayJob:
    """What each process loads. archive: the bytes of the `.mar` in the cluster's store."""

    archive: Any
    origin: Origin
    task: str
    options: Mapping[str, str]
    on_gpu: bool


class Predictor:
    """Runs in the cluster: loads an archive, predicts chunks, and gives back their shards."""

    def __init__(self, archive: bytes, origin: Origin, task: str, options: Mapping[str, str], plan: Plan) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="vision-serving-")
        self._work = Path(self._folder.name)
        self._refused = ""
        try:
            file = self._work / "model.mar"
            file.write_bytes(archive)
            extract_archive(file, self._work / "archive")
            file.unlink()
            processes = max(1, usable_cores() // plan.threads)
            handler = load_handler(self._work / "archive", plan_threads(usable_cores(), processes, plan.threads))
            self._predictor = ChunkPredictor(handler, options, origin, task)
            freeze_objects()
        except VisionServingError as error:
            self._refused = str(error)

    def probe(self) -> dict[str, Any]:
        """Return the answer to a gray picture, or why the archive was refused."""
        return {"refused": self._refused} if self._refused else {"probe": self._predictor.probe()}

    def predict(self, items: Sequence[tuple[Any, ...]], batch_size: int, form: str) -> tuple[Written, bytes]:
        """Return what a shard of some pictures holds, and the bytes of its file. items: the values of each Item."""
        shard = self._work / f".part-0.{form}.tmp"
        written = self._predictor.predict([Item(*values) for values in items], batch_size, shard)
        content = shard.read_bytes()
        shard.unlink()
        return written, content


class RayWorker:
    """One such process, started again when it is lost. `probe`: its answer to a gray picture."""

    def __init__(self, cluster: Cluster, job: RayJob, plan: Plan, form: str) -> None:
        self._ray, self._job, self._plan, self._form = cluster.ray, job, plan, form
        self._actor: Any = None
        self.probe: Answer = {}
        self._start(START_S)

    def _start(self, patience_s: float) -> None:
        needs = {"num_gpus": 1} if self._job.on_gpu else {}
        new = self._ray.remote(Predictor).options(num_cpus=SHARE * self._plan.threads, max_restarts=0, **needs)
        job = self._job
        self._actor = new.remote(job.archive, job.origin, job.task, dict(job.options), self._plan)
        try:
            answer = self._get(self._actor.probe.remote(), patience_s)
        except self._ray.exceptions.GetTimeoutError as error:
            self.close()
            raise WorkerGoneError(f"no machine of the cluster has loaded the model within {patience_s:g} s") from error
        if "refused" in answer:
            self.close()
            raise LocalEngineError(answer["refused"])
        self.probe = answer["probe"]

    def predict(self, chunk: Chunk, batch_size: int, path: Path) -> Written:
        """Write a chunk's shard. Raises ProcessLostError, or OSError of the disk."""
        items = [tuple(item) for item in chunk.items]  # pickled in a tenth of the time of the class
        try:
            written, content = self._get(self._actor.predict.remote(items, batch_size, self._form), CHUNK_S)
        except self._ray.exceptions.GetTimeoutError as error:
            raise ProcessLostError(f"gave up after {CHUNK_S:g} s") from error
        write_synced(path, [content])
        return Written(*written)

    def _get(self, reference: Any, timeout_s: float) -> Any:
        """Raises ProcessLostError where the process, or its machine, has ended."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference, timeout=timeout_s)
        except errors.GetTimeoutError:
            raise
        except errors.RayTaskError as error:  # of our own code: the process is not to be trusted any more
            raise ProcessLostError(f"{type(error.cause).__name__}: {error.cause}"[:300]) from error
        except errors.RayError as error:
            raise ProcessLostError(f"its process has ended ({type(error).__name__})") from error

    def restart(self) -> None:
        """Raises WorkerGoneError where no machine has room."""
        self.close()
        self._start(RESTART_S)

    def kill(self) -> None:
        self.close()

    def close(self) -> None:
        if self._actor is not None:
            self._ray.kill(self._actor)
            self._actor = None
