"""Chunks -> shards on this machine: processes that load an archive and write what they predict.

A process that dies is replaced, and its chunk tried again. A chunk that ends its process twice is halved until the one
bad picture is alone: its row tells the reason, and no other picture is lost.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

from mar_tools.asking import ProcessLostError, start_asked_process
from mar_tools.predicting.chunks import Chunk, ChunkSource, Tell, Written, write_rows
from mar_tools.predicting.rows import Answer, Origin, make_row
from mar_tools.predicting.shards import ResultFolder
from vision_serving.errors import VisionServingError

PROCESS = "mar_tools.predicting.local_worker"
TIMEOUT_S = 600.0  # of a chunk of seconds: what takes longer hangs
POLL_S = 0.2
WORKER_ENDED = 500  # the status of a picture that ends its process


class WorkerGoneError(Exception):
    """A worker is lost and cannot be replaced; the others go on with its work."""


class LocalEngineError(VisionServingError):
    """The archive cannot be loaded, or refuses every picture; the message says why."""


@dataclass(frozen=True)
class LocalJob:
    """What each process loads. folder: of the extracted archive."""

    folder: Path
    origin: Origin
    task: str
    options: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """How the cores are used. threads: of each process."""

    processes: int
    threads: int


class Worker(Protocol):
    """A process with the model loaded, here or on another machine. probe: its answer to a gray picture."""

    probe: Answer

    def predict(self, chunk: Chunk, batch_size: int, path: Path) -> Written: ...
    def restart(self) -> None: ...
    def kill(self) -> None: ...
    def close(self) -> None: ...


NewWorker = Callable[[Plan], Worker]


class LocalWorker:
    """One process with the model loaded, started again when it is lost. `probe`: its answer to a gray picture."""

    def __init__(self, job: LocalJob, logs: Path, plan: Plan) -> None:
        self._job, self._plan, self._log = job, plan, logs / f"{id(self)}.log"
        self._stack = ExitStack()
        self._process: psutil.Process | None = None
        self.probe: Answer = {}
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        self._worker = self._stack.enter_context(start_asked_process(PROCESS, self._log, TIMEOUT_S))
        self._process = psutil.Process(self._worker.pid)
        job = self._job
        origin = [job.origin.model, job.origin.version, job.origin.archive_sha256]
        plan = {"processes": self._plan.processes, "threads": self._plan.threads}
        first = {"folder": str(job.folder), "origin": origin, "task": job.task, "options": dict(job.options), **plan}
        self.probe = self._ask(first)["probe"]

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._worker.ask(question)
        if "refused" in answer:
            raise LocalEngineError(answer["refused"])
        if "disk" in answer:
            raise OSError(*answer["disk"])
        return answer

    def predict(self, chunk: Chunk, batch_size: int, path: Path) -> Written:
        """Write a chunk's shard. Raises ProcessLostError, OSError of the disk, or LocalEngineError."""
        question = {"items": [list(item) for item in chunk.items], "batch_size": batch_size, "path": str(path)}
        return Written(**self._ask(question))

    def restart(self) -> None:
        self.close()
        self._start()

    def kill(self) -> None:
        """End the process from any thread; whoever waits for its answer gets ProcessLostError."""
        with suppress(psutil.NoSuchProcess):
            if self._process is not None:
                self._process.kill()

    def close(self) -> None:
        self._stack.close()


class Crew:
    """Processes that share the work. tell: hears of every shard."""

    def __init__(self, workers: Sequence[Worker], origin: Origin, task: str, result: ResultFolder, tell: Tell) -> None:
        self.workers, self._origin, self._task, self._result, self._tell = list(workers), origin, task, result, tell
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def work(self, source: ChunkSource, batch_size: int, count: Callable[[], int], shards: int | None = None) -> float:
        """Predict until the source is empty, or each process has written so many shards. Return pictures a second.

        count: of pictures of the next chunk. Raises what an input, the disk or the model raise.
        """
        rate = self._work_once(source, batch_size, count, shards)
        while source.has_returned:  # a worker was lost when the others had nothing left to do
            rate += self._work_once(source, batch_size, count, shards)
        return rate

    def _work_once(self, source: ChunkSource, batch_size: int, count: Callable[[], int], shards: int | None) -> float:
        pool = ThreadPoolExecutor(len(self.workers))
        rates = [pool.submit(self._serve, worker, source, batch_size, count, shards) for worker in self.workers]
        try:
            left = set(rates)
            while left and not any(rate.done() and rate.exception() for rate in rates):
                _, left = wait(left, POLL_S)
            return sum(rate.result() for rate in rates if rate.done())
        finally:
            if any(not rate.done() for rate in rates):
                self._stopped.set()
                for worker in self.workers:
                    worker.kill()
            pool.shutdown()

    def _serve(
        self,
        worker: Worker,
        source: ChunkSource,
        batch_size: int,
        count: Callable[[], int],
        shards: int | None,
    ) -> float:
        done, seconds, number = 0, 0.0, 0
        while not self._stopped.is_set() and (shards is None or number < shards):
            chunk = source.take(count())
            if chunk is None:
                break
            try:
                written = self._predict(worker, chunk, batch_size, tries=2)
            except WorkerGoneError as error:
                source.give_back(chunk)
                self._let_go(worker, error)
                break
            done, seconds, number = done + written.rows, seconds + written.seconds, number + 1
        return done / seconds if seconds else 0.0

    def _let_go(self, worker: Worker, error: WorkerGoneError) -> None:
        """Go on without a worker. Raises LocalEngineError where it was the last one."""
        with self._lock:
            if len(self.workers) == 1:
                raise LocalEngineError(f"the last process is lost: {error}") from error
            self.workers.remove(worker)

    def _predict(self, worker: Worker, chunk: Chunk, batch_size: int, tries: int) -> Written:
        temporary, reason = self._result.temporary(chunk.position), ""
        for _ in range(tries):
            if self._stopped.is_set():
                return Written(0, 0, "")
            try:
                return self._commit(worker.predict(chunk, batch_size, temporary), chunk)
            except ProcessLostError as error:
                temporary.unlink(missing_ok=True)
                if self._stopped.is_set():
                    return Written(0, 0, "")
                reason = str(error)
                worker.restart()
        if len(chunk.items) == 1:
            answer = {"code": WORKER_ENDED, "type": "ProcessLostError", "message": f"ends the process: {reason}"}
            row = make_row(chunk.items[0].name, answer, self._origin)
            return self._commit(write_rows(temporary, [row], self._task), chunk)
        first, second = (self._predict(worker, half, batch_size, tries=1) for half in chunk.halves())
        return Written(first.rows + second.rows, first.failed + second.failed, "", first.seconds + second.seconds)

    def _commit(self, written: Written, chunk: Chunk) -> Written:
        with self._lock:
            self._result.commit(self._result.temporary(chunk.position), chunk.position, written.rows, written.failed)
            self._tell(written)
        return written


@contextmanager
def open_crew(
    new_worker: NewWorker, plan: Plan, origin: Origin, task: str, result: ResultFolder, tell: Tell
) -> Iterator[Crew]:
    """Start the processes of a plan at the same time. Raises LocalEngineError where the archive cannot be loaded."""
    workers: list[Worker] = []
    try:
        with ThreadPoolExecutor(plan.processes) as pool:
            starts = [pool.submit(new_worker, plan) for _ in range(plan.processes)]
            wait(starts)
            workers += [start.result() for start in starts if start.exception() is None]
            for start in starts:
                start.result()
        yield Crew(workers, origin, task, result, tell)
    except (ProcessLostError, WorkerGoneError) as error:
        raise LocalEngineError(f"a process that loads the archive: {error}") from error
    finally:
        with ThreadPoolExecutor(plan.processes) as pool:
            list(pool.map(lambda worker: worker.close(), workers))
