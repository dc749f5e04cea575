"""A real worker process of TorchServe, and what becomes of it when its model does the worst."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import psutil
import pytest
import yaml
from fakes import GREEN, RED, Colour, png, write_model_dir
from torchserve_worker import Worker, raw, start_worker

import vision_serving.worker.guard as protection
from mar_tools.serving.logs import LOAD_FAILURE
from vision_serving.errors import ConfigError
from vision_serving.worker.guard import (
    Timeouts,
    WorkerGuard,
    is_worker,
    patience_s,
    pause_before_failing_again,
    read_timeouts,
)

IMPORT_PATHS = (Path(__file__).resolve().parents[3] / "handlers", Path(__file__).resolve().parents[2])
RESPONSE_TIMEOUT_S = 5
GREEDY, LOST, STUCK, LEAKY = (11, 0, 0), (12, 0, 0), (13, 0, 0), (14, 0, 0)

# An entry file as an archive has one, on the colour backend; the model is well until it sees one of four colours.
WILD = """
import ctypes
import numpy as np
from image_classification import ImageClassificationHandler
from vision_serving.backends import BACKENDS

BACKENDS["colour_classifier"] = "fakes:ColourClassifier"

class WildHandler(ImageClassificationHandler):
    leaks = False

    def inference(self, batch):
        colours = [tuple(image[0, 0].tolist()) for image in batch.pixels]
        if (11, 0, 0) in colours:
            np.empty(8 << 30, dtype=np.uint8)
        if (12, 0, 0) in colours:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if (13, 0, 0) in colours:
            ctypes.PyDLL(None).sleep(600)  # with the GIL
        self.leaks |= (14, 0, 0) in colours
        if self.leaks:
            raise MemoryError
        return super().inference(batch)
"""


def write_wild_model(folder: Path, labels: bytes = b'["red", "green", "blue"]', startup_s: int = 60) -> Path:
    write_model_dir(folder, "classification")
    path = folder / "model-config.yaml"
    timeouts = {"responseTimeout": RESPONSE_TIMEOUT_S, "startupTimeout": startup_s}
    path.write_text(yaml.safe_dump({**timeouts, **yaml.safe_load(path.read_text())}))
    (folder / "labels.json").write_bytes(labels)
    (folder / "wild.py").write_text(WILD)
    return folder


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """One that has loaded the wild model."""
    model = write_wild_model(tmp_path / "model")
    with start_worker(tmp_path / "worker", [model, *IMPORT_PATHS]) as worker:
        reply = worker.load(model, "wild")
        assert (reply.code, reply.message) == (200, "loaded model colours"), worker.log()
        yield worker


def statuses(worker: Worker, *colours: Colour) -> list[int]:
    return [answer.status for answer in worker.predict(*(raw(png(colour)) for colour in colours)).answers]


def test_eight_gigabytes_that_a_model_wants_are_a_507_of_that_image(worker: Worker) -> None:
    assert statuses(worker, RED, GREEDY, GREEN) == [200, 507, 200]
    assert statuses(worker, GREEN) == [200]


def test_a_worker_whose_memory_is_gone_for_good_is_replaced(worker: Worker) -> None:
    assert statuses(worker, LEAKY) == [507]
    assert worker.is_replaced()
    assert "no memory left" in worker.log()


def test_a_batch_that_hangs_ends_the_worker_in_time_with_all_stacks_in_the_log(worker: Worker) -> None:
    began = time.monotonic()
    with pytest.raises(ConnectionError):
        statuses(worker, RED, STUCK)
    assert patience_s(RESPONSE_TIMEOUT_S) - 0.5 <= time.monotonic() - began
    assert worker.is_replaced()
    log = worker.log()
    assert "Timeout (0:00:04)!" in log
    assert "in inference" in log
    assert "model_service_worker.py" in log


def test_a_gpu_that_fails_is_answered_and_the_next_batch_ends_the_worker(worker: Worker) -> None:
    reply = worker.predict(*(raw(png(colour)) for colour in (RED, LOST)))
    assert [answer.status for answer in reply.answers] == [500, 500]
    assert [orjson.loads(answer.body)["type"] for answer in reply.answers] == ["DeviceLostError"] * 2
    assert worker.log().count("an illegal memory access") == 2, "in one traceback, and its raise: nothing was halved"
    with pytest.raises(ConnectionError):
        statuses(worker, GREEN)
    assert worker.is_replaced()


def test_a_worker_whose_gpu_failed_ends_when_no_batch_comes(worker: Worker) -> None:
    assert statuses(worker, LOST) == [500]
    assert worker.is_replaced()


def test_a_load_that_fails_again_does_so_after_a_pause(tmp_path: Path) -> None:
    model = write_wild_model(tmp_path / "model", labels=b"{", startup_s=8)
    waited = []
    for attempt in ("first", "second"):
        with start_worker(tmp_path / attempt, [model, *IMPORT_PATHS]) as worker:
            began = time.monotonic()
            assert worker.load(model, "wild").code == 500
            waited.append(time.monotonic() - began)
            assert "Failed to load model colours, exception" in worker.log()
            assert "labels.json: not a readable JSON file" in worker.log()
    longest_s = patience_s(8) - 1
    assert waited[1] >= longest_s - 0.1
    assert waited[1] >= waited[0]


LOAD_FOREVER = """
import sys, time
from pathlib import Path
from vision_serving.worker.guard import WorkerGuard
with WorkerGuard.of(Path(sys.argv[1])).load(Path(sys.argv[1])):
    time.sleep(600)
"""


def test_a_load_that_hangs_ends_before_its_timeout(tmp_path: Path) -> None:
    (tmp_path / "model-config.yaml").write_text("startupTimeout: 1")
    script = tmp_path / "model_service_worker.py"  # by whose name a worker is known
    script.write_text(LOAD_FOREVER)
    environment = {**os.environ, "PYTHONPATH": str(IMPORT_PATHS[0])}
    finished = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, env=environment, timeout=120
    )
    assert finished.returncode == 1
    assert "Timeout (0:00:00.8" in finished.stderr
    assert "line 6 in <module>" in finished.stderr


# Without a process of its own


def test_this_process_is_no_worker() -> None:
    assert not is_worker()


def test_outside_of_a_worker_nothing_is_watched_or_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("dump_traceback_later", "enable"):
        monkeypatch.setattr(f"faulthandler.{name}", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(protection, "limit_data", lambda limit: 1 / 0)
    guard = WorkerGuard.of(tmp_path)
    with guard.load(tmp_path), guard.batch():
        guard.limit_memory(1)
        guard.end_after_answer("the GPU failed")
    with guard.batch():
        pass


def test_a_worker_waits_for_the_next_batch_from_the_end_of_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    class Timer:
        def __init__(self, seconds: float, *_: object) -> None:
            self.seconds = seconds

        def start(self) -> None:
            waits.append(self.seconds)

    monkeypatch.setattr("threading.Timer", Timer)
    guard = WorkerGuard(active=True)
    with guard.batch():
        guard.end_after_answer("the GPU failed")
        assert waits == []
    assert waits == [protection.IDLE_S]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("responseTimeout: 7\nstartupTimeout: 8\n", Timeouts(7, 8)),
        ("handler: {}\n", Timeouts(120, 120)),
        ("responseTimeout: soon\nstartupTimeout: 0\n", Timeouts(120, 120)),
        ("- no mapping\n", Timeouts(120, 120)),
        ("{", Timeouts(120, 120)),
        ("responseTimeout: 2024-13-45\n", Timeouts(120, 120)),
        (None, Timeouts(120, 120)),
    ],
    ids=["both", "neither", "no numbers", "a list", "no yaml", "no date", "no file"],
)
def test_timeouts_are_those_of_torchserve(tmp_path: Path, text: str | None, expected: Timeouts) -> None:
    path = tmp_path / "model-config.yaml"
    if text is not None:
        path.write_text(text)
    assert read_timeouts(path) == expected


@pytest.mark.parametrize(("timeout_s", "expected"), [(1, 0.8), (5, 4), (60, 55), (600, 595)])
def test_the_watchdog_is_a_little_before_torchserve(timeout_s: float, expected: float) -> None:
    assert patience_s(timeout_s) == expected


def test_a_pause_ends_with_the_server_and_its_reason_is_told_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    marker, parents = tmp_path / ".load_failed", iter([1, 1, 2])
    pause_before_failing_again(marker, float("inf"), ConfigError("torn labels"))  # the first time at once
    assert caplog.messages == []
    told: list[list[str]] = []

    def parent() -> int:
        told.append(list(caplog.messages))
        return next(parents)

    monkeypatch.setattr(os, "getppid", parent)
    pause_before_failing_again(marker, float("inf"), ConfigError("torn\nlabels"))
    assert next(parents, None) is None
    assert told[0] == [f"Failed to load model {tmp_path.name}, exception torn labels"]
    assert LOAD_FAILURE.search(told[0][0])[1] == "torn labels"  # type: ignore[index]


def test_a_folder_that_cannot_be_written_to_pauses_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "no folder" / ".load_failed"
    for _ in range(2):
        pause_before_failing_again(marker, float("inf"), ConfigError("torn labels"))


SERVER = """
import subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
print(int(worker.stdout.readline()), flush=True)
time.sleep(60)
"""
ORPHAN = """
import os, threading, time
from vision_serving.worker.guard import end_with_server
end_with_server()
threading.Thread(target=time.sleep, args=[60]).start()  # a worker that is in the middle of something
print(os.getpid(), flush=True)
"""


def test_a_worker_ends_with_the_server_that_is_killed() -> None:
    server = subprocess.Popen([sys.executable, "-c", SERVER, ORPHAN], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    orphan = psutil.Process(int(server.stdout.readline()))
    server.kill()
    server.wait()
    psutil.wait_procs([orphan], timeout=30)
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
