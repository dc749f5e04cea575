"""The server that faults happen to, the requests that it ought to answer, and what can be seen of it from outside."""

import itertools
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from lab.testbed.archives import RESPONSE_TIMEOUT_S, SERVED, Archives, picture_of
from lab.testbed.traffic import Ask, Check, Exchange, Traffic, send_all
from mar_tools.command_line import ROOT
from mar_tools.images import load_encoded_images
from mar_tools.load_testing.answers import Expected, expect_answers
from mar_tools.load_testing.processes import find_processes
from mar_tools.serving.config_file import format_models, with_absolute_paths, with_values
from mar_tools.serving.server import Server
from mar_tools.serving.temporary_server import START_TIMEOUT_S, temporary_server
from mar_tools.serving.torchserve_api import ServerError
from mar_tools.waiting import wait_until
from vision_serving.cores import plan_threads, usable_cores

WORKERS, BATCH_SIZE, BATCH_DELAY_MS = 2, 4, 20
# While one of two workers starts, less than half of two cores is left: that must show as time, not as refusals.
QUEUE = 500
PICTURES = 20
HELD_OUT = ROOT / "examples" / "digits_classification" / "heldout"
CLIENT_TIMEOUT_S = RESPONSE_TIMEOUT_S + 3.0  # what the server answers at its own timeout is an answer to its client
PROBE_CONNECTIONS = WORKERS * BATCH_SIZE
PROBE_REQUESTS = 300
POLL_S = 0.1
MB = 1e6


@dataclass
class Running:
    """A server, and how it is asked."""

    server: Server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.ports()['inference_address']}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.server.client.token('inference')}"}

    def worker_pids(self, model: str = SERVED) -> list[int]:
        """Return the workers that are ready and alive."""
        described = [worker for entry in self.server.client.describe(model) for worker in entry["workers"]]
        pids = [int(worker["pid"]) for worker in described if worker["status"] == "READY"]
        return sorted(pid for pid in pids if is_alive(pid))


@dataclass
class World(Running):
    """A running server of SERVED. good: requests with known answers. rate: of the traffic, in requests/s.

    patience: times that bounds in seconds are multiplied with, on a machine that is busy with other things.
    """

    archives: Archives
    good: tuple[Ask, ...]
    rate: float
    patience: float = 1.0

    def traffic(self, seed: int, tries: int = 1, asks: Iterable[Ask] | None = None) -> Traffic:
        """Return good requests at the rate of this world, in random order. tries: of a client for each of them."""
        choose = random.Random(seed)
        good = (choose.choice(self.good) for _ in itertools.count())
        return Traffic(self.url, asks or good, self.rate, self.headers, seed, CLIENT_TIMEOUT_S, tries)

    def send(self, asks: Sequence[Ask], connections: int = PROBE_CONNECTIONS) -> list[Exchange]:
        return send_all(self.url, asks, connections, self.headers, CLIENT_TIMEOUT_S)

    def fatal(self, fault: Callable[[], None], status: int = 200) -> Ask:
        """Return the request that makes a worker do it. status: with which it ought to be answered."""
        name = fault.__name__
        return Ask(name, f"/predictions/{SERVED}", picture_of(fault), {"Content-Type": "image/png"}, status, good=False)

    def frontend(self) -> psutil.Process:
        """Raises ServerError where it does not run."""
        process = self.server.process()
        if process is None:
            raise ServerError("the server of the test has ended")
        return process

    def is_ready(self, before: Sequence[int] = (), replaced: int = 0) -> bool:
        """Return whether all workers are ready, so many of them others than `before`, and a prediction is right."""
        try:
            pids = self.worker_pids()
        except ServerError:
            return False
        all_there = len(pids) == WORKERS and len(set(pids) - set(before)) >= replaced
        return all_there and not self.send(self.good[:1])[0].problem

    def wait_until_ready(
        self, since: float, timeout_s: float, before: Sequence[int] = (), replaced: int = 0
    ) -> float | None:
        """Return seconds since that moment of time.perf_counter; None where it is not in so many."""
        left_s = since + timeout_s - time.perf_counter()
        ready = wait_until(lambda: self.is_ready(before, replaced), left_s, POLL_S)
        return time.perf_counter() - since if ready else None

    def restart(self) -> None:
        """Raises ServerError."""
        self.server.stop()
        self.server.start(START_TIMEOUT_S, lambda step: None)

    def resident_mb(self) -> float:
        """Return MB of the frontend and its workers together."""
        return sum(float(process.memory_info().rss) for process in find_processes([self.frontend().pid])) / MB

    def log(self) -> str:
        """Return what the workers wrote so far."""
        path = self.server.folder / "logs" / "model_log.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


@contextmanager
def open_world(archives: Archives, settings: Mapping[str, str], rate: float | None = None) -> Iterator[World]:
    """Open a world. settings: of config.properties. rate: half of saturation, which is measured, by default."""
    good = good_asks(archives.export)
    with temporary_server(
        [archives.served, archives.beside], world_properties(settings), ROOT / "log4j2.xml"
    ) as server:
        world = World(server, archives, good, rate or 0.0)
        if rate is None:
            world.rate = measure_saturation(world) / 2
        yield world


def world_properties(settings: Mapping[str, str]) -> str:
    """Return the shipped config.properties, with the workers and batches of the tests."""
    model = {
        "defaultVersion": True,
        "marName": f"{SERVED}.mar",
        "minWorkers": WORKERS,
        "maxWorkers": WORKERS,
        "batchSize": BATCH_SIZE,
        "maxBatchDelay": BATCH_DELAY_MS,
    }
    models = {"load_models": f"{SERVED}.mar", "models": format_models({SERVED: {"1.0": model}})}
    shipped = with_absolute_paths((ROOT / "config.properties").read_text(encoding="utf-8"), ROOT)
    return with_values(shipped, {**models, "job_queue_size": str(QUEUE), **settings})


def load_pictures(count: int) -> list[bytes]:
    """Return pictures that the model never saw."""
    return load_encoded_images(HELD_OUT, count)


def good_asks(export: Path, model: str = SERVED, count: int = PICTURES) -> tuple[Ask, ...]:
    """Return pictures that the model never saw, with its answer to each."""
    pictures = load_pictures(count)
    expected = expect_answers(export, pictures, plan_threads(usable_cores(), WORKERS))
    headers = {"Content-Type": "image/jpeg"}
    return tuple(
        Ask(f"picture {number}", f"/predictions/{model}", picture, headers, check=check_prediction(answer))
        for number, (picture, answer) in enumerate(zip(pictures, expected, strict=True))
    )


def check_prediction(expected: Expected) -> Check:
    def check(body: bytes) -> str:
        return "" if expected.matches(body) else f"another answer than the model's: {body[:200]!r}"

    return check


def measure_saturation(world: World) -> float:
    """Measure requests/s of the closed loop that fills all batches. Raises ServerError where any fails."""
    asks = [world.good[number % len(world.good)] for number in range(PROBE_REQUESTS)]
    world.send(asks[:PROBE_CONNECTIONS])
    started = time.perf_counter()
    failed = [exchange.problem for exchange in world.send(asks) if exchange.problem]
    if failed:
        raise ServerError(f"{len(failed)} of {PROBE_REQUESTS} requests failed before any fault; the first: {failed[0]}")
    return PROBE_REQUESTS / (time.perf_counter() - started)


def is_alive(pid: int) -> bool:
    """Return whether it is alive; a zombie is not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
