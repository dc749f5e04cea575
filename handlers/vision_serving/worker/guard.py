"""What protects a worker of TorchServe from itself: a watchdog, a bound of its memory, an end after the last answer.

docs/understand/workers.md has the numbers. In any other process that runs the core, all of it does nothing.
"""

import atexit
import faulthandler
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vision_serving.errors import ConfigError, VisionServingError
from vision_serving.foreign_errors import is_out_of_memory
from vision_serving.validation import read_yaml
from vision_serving.worker.server_settings import SETTINGS_VARIABLE

logger = logging.getLogger(__name__)

WORKER_SCRIPT = "model_service_worker.py"  # TorchServe's, which a worker runs
MARGIN, MAX_MARGIN_S = 0.2, 5.0  # of a timeout: what the watchdog leaves to the way from and to the frontend
IDLE_S = 1.0  # a worker that is to end waits so long for the batch that it would break off unseen
POLL_S = 0.5
FAILED_LOAD = ".load_failed"  # in the folder of the archive, which TorchServe makes anew for each registration
PAUSE_S = 120.0  # before a load fails that has failed before
MEBI = 1 << 20


@dataclass(frozen=True)
class Timeouts:
    """Seconds that TorchServe waits for a worker: for its answer to a batch, and until it has loaded."""

    response_s: int = 120
    startup_s: int = 120


def read_timeouts(path: Path) -> Timeouts:
    """Read the archive's `model-config.yaml`; take TorchServe's own timeouts where it says nothing that can be read."""
    try:
        document = read_yaml(path)
    except ConfigError:  # to be told by whoever reads all of it
        document = None
    found = document if isinstance(document, dict) else {}
    keys = {"response_s": found.get("responseTimeout"), "startup_s": found.get("startupTimeout")}
    return Timeouts(**{key: value for key, value in keys.items() if type(value) is int and value > 0})


def patience_s(timeout_s: float) -> float:
    """Return how long the watchdog waits where TorchServe waits for `timeout_s`."""
    return timeout_s - min(MARGIN * timeout_s, MAX_MARGIN_S)


def is_worker() -> bool:
    """Return whether TorchServe, or another server that names its settings, started this process to serve a model."""
    if SETTINGS_VARIABLE in os.environ:
        return True
    return Path(getattr(sys.modules["__main__"], "__file__", None) or "").name == WORKER_SCRIPT


class WorkerGuard:
    """One worker's. A load or a batch that hangs, in any code, ends it, with the stacks of all threads in the log."""

    def __init__(self, timeouts: Timeouts = Timeouts(), active: bool = False) -> None:
        self._timeouts = timeouts
        self._active = active
        self._ends = False

    @classmethod
    def of(cls, model_dir: Path) -> "WorkerGuard":
        return cls(read_timeouts(model_dir / "model-config.yaml"), is_worker())

    @contextmanager
    def load(self, model_dir: Path) -> Iterator[None]:
        """Guard all of a load. Raises VisionServingError alone: of others TorchServe gives no reason.

        A load that failed before fails again only after a pause: TorchServe would start it a dozen times in a minute
        or two, each with a process that imports everything, and with the same reason in the log.
        """
        deadline = time.monotonic() + patience_s(self._timeouts.startup_s)
        if self._active:
            faulthandler.enable()  # a crash, too, leaves its stacks in the log
            end_with_server()
        with self._watch(self._timeouts.startup_s):
            try:
                yield
            except Exception as error:
                if self._active and not is_out_of_memory(error):
                    limit = min(time.monotonic() + PAUSE_S, deadline - 1)
                    pause_before_failing_again(model_dir / FAILED_LOAD, limit, error)
                if isinstance(error, VisionServingError):
                    raise
                raise VisionServingError(f"{type(error).__name__}: {' '.join(str(error).split())}") from error
        if self._active:
            (model_dir / FAILED_LOAD).unlink(missing_ok=True)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Guard all of a batch."""
        if self._ends:
            os._exit(1)  # TorchServe answers this batch with 500 at once, and starts another worker
        with self._watch(self._timeouts.response_s):
            yield
        if self._ends:
            timer = threading.Timer(IDLE_S, os._exit, [1])
            timer.daemon = True
            timer.start()

    def end_after_answer(self, reason: str) -> None:
        """End the worker with the next batch, or when none came for IDLE_S.

        Not between the two, as soon as the answer is sent: TorchServe is filling the next batch then, and forgets what
        it has of it when its worker goes, so that those requests would never be answered.
        """
        if self._active and not self._ends:
            self._ends = True
            logger.error("%s; this worker ends, and TorchServe starts another", reason)

    def freeze_objects(self) -> None:
        """Keep what is there now: collections of cycles need not look at it again.

        All of PyTorch is some 400,000 objects. A look at them takes 200 ms, in the middle of a batch, and Python puts
        it off until a quarter as many new ones have gathered.
        """
        if self._active:
            gc.collect()
            gc.freeze()
            gc.collect()  # of nothing: by what this one finds, Python decides when to do the next one

    def limit_memory(self, headroom_mb: int) -> None:
        """Let this process take no more than `headroom_mb` beyond what it holds; 0: whatever there is."""
        if self._active and headroom_mb and sys.platform == "linux":
            limit_data(held_bytes() + headroom_mb * MEBI)

    @contextmanager
    def _watch(self, timeout_s: float) -> Iterator[None]:
        """Watch with faulthandler's thread of C: it needs no lock of Python's, which whatever hangs may hold."""
        if not self._active:
            yield
            return
        faulthandler.dump_traceback_later(patience_s(timeout_s), exit=True)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def end_with_server() -> None:
    """Let this process end when the one that started it does, were it killed: a worker without its frontend only takes
    memory. And let it end at once then: there is nothing to save, and runtimes may hang while they are taken down.
    """
    server = os.getppid()

    def watch() -> None:
        while os.getppid() == server:
            time.sleep(POLL_S)
        os._exit(1)

    def end() -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # what was printed last, such as why a load failed, is on its way to the log
        os._exit(0)

    atexit.register(end)
    threading.Thread(target=watch, name="end_with_server", daemon=True).start()


def pause_before_failing_again(marker: Path, deadline: float, error: Exception) -> None:
    """Return at once the first time, after that not before `deadline` (time.monotonic), unless TorchServe ends."""
    if not marker.exists():
        with suppress(OSError):  # a folder that cannot be written to: then TorchServe's own pace is kept
            marker.touch()
        return
    # As TorchServe says it afterwards: whoever waits for the reason, which the first time may not have come through,
    # does not wait for the end of the pause. TorchServe ends a worker while its last line is still in the pipe.
    logger.error("Failed to load model %s, exception %s", marker.parent.name, " ".join(str(error).split()))
    server = os.getppid()
    while time.monotonic() < deadline and os.getppid() == server:
        time.sleep(POLL_S)


def held_bytes() -> int:
    """Return what counts towards RLIMIT_DATA: memory that is this process's own to write to, touched or not."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmData:")[2].split()[0]) * 1024


def limit_data(limit: int) -> None:
    """Set the soft limit alone, and never above one that is there."""
    import resource  # not on every system

    limits = resource.getrlimit(resource.RLIMIT_DATA)
    others = [value for value in limits if value != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([limit, *others]), limits[1]))
