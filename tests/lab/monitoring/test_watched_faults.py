"""Faults on a real server that a real Prometheus watches: each fires its alerts alone, and all panels have data."""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import requests
from e2e.conftest import ROOT, Service, serve
from e2e.front.conftest import Running, nginx, nginx_processes, run_front
from e2e.operations.test_operations import derive, expect_another_class
from e2e.test_requests import GARBAGE, OCTETS
from watching_prometheus import SCRAPE_S, Prometheus, watch_with_prometheus

from lab.testbed.archives import build_archives, picture_of
from lab.testbed.faulty_classification import raise_an_error, sleep_a_while
from mar_tools.serving.graceful_stop import stop_drained
from mar_tools.serving.metrics_exporter import mend_exporter, metrics_folder
from mar_tools.serving.ports import find_free_ports
from mar_tools.serving.processes import find_exporters
from mar_tools.waiting import wait_until

__all__ = ["nginx"]
pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus: apt install prometheus")

PATIENCE_S = 180.0  # a busy machine loads a worker in half a minute
PREDICT = "/predictions/digits"
QUEUE, BURST = 40, 60
MODELS = json.dumps(
    {
        "digits": {
            "1.0": {
                "defaultVersion": True, "marName": "digits.mar", "minWorkers": 2, "maxWorkers": 2,
                "batchSize": 8, "maxBatchDelay": 20,
            }
        },
        "sampled": {"1.0": {"minWorkers": 1, "sample_share": 1.0}},
    },
    separators=(",", ":"),  # write_configuration looks for a space
)  # fmt: skip

SLOW_S = 0.9  # of a request; the alerts speak of a second
SLOW_WINDOW_S = 26 * SCRAPE_S  # for which they remember it


@dataclass
class World:
    """A server that fails on demand, its front, a client that asks all the time, and the Prometheus that watches."""

    service: Service
    front: Running
    prometheus: Prometheus
    since: float
    slow_at: list[float] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.service.folder / "config.properties"

    def predict(self, image: bytes, **headers: str) -> int | None:
        """Return the status of a client's request, None where there is no answer."""
        with suppress(requests.RequestException):
            return int(self.front.predict(image, **headers).status_code)
        return None

    def predict_timed(self, image: bytes) -> None:
        """Note when a request takes so long that an alert of slowness is right, as on a busy machine."""
        began = time.time()
        self.predict(image)
        if time.time() - began > SLOW_S:
            self.slow_at.append(began)

    def slow_since(self, began: float) -> set[str]:
        """Return the alerts that are right where the machine itself was slow."""
        return {"VisionSlow", "VisionBatchSlow"} if any(at > began - SLOW_WINDOW_S for at in self.slow_at) else set()

    def ask_directly(self, image: bytes) -> int:
        return int(self.service.post("digits", image, OCTETS).status_code)


Fault = Callable[[World, bytes], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def world(nginx: None, seven: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("faults")
    built = build_archives(folder)
    [port] = find_free_ports(1)
    changes = {"metrics_port": str(port), "metrics_golden_s": "3", "models": MODELS, "job_queue_size": str(QUEUE)}
    changes["load_models"] = "digits.mar"  # a server that is started again does not load what faults need
    limits = {"requests_per_s": 30, "burst": 150, "concurrent_requests": 100}
    with serve([built.served], tmp_path_factory.mktemp("server"), **changes) as service:
        for name, model, version, made in (
            ("digits_2.mar", "digits", "2.0", {}),
            ("wrong.mar", "wrong", "1.0", {"golden": expect_another_class}),
            ("sampled.mar", "sampled", "1.0", {}),
        ):
            derive(built.served, service.model_store / name, model, version, **made)
        (service.model_store / "broken.mar").write_bytes(built.broken.read_bytes())
        front_folder, seen = tmp_path_factory.mktemp("front"), tmp_path_factory.mktemp("prometheus")
        with (
            run_front(front_folder, service.folder / "config.properties", **limits) as front,
            watch_with_prometheus(seen, port) as prometheus,
        ):
            world = World(service, front, prometheus, time.time())
            with keep_busy(lambda: world.predict_timed(seven), 1, 0.25):
                yield world


@pytest.fixture(scope="module")
def seven() -> bytes:
    return (ROOT / "examples" / "digits_classification" / "samples" / "seven.png").read_bytes()


@contextmanager
def keep_busy(ask: Callable[[], object], threads: int, pause_s: float) -> Iterator[None]:
    """Ask from several threads until the block ends."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(pause_s):
            ask()

    askers = [threading.Thread(target=run) for _ in range(threads)]
    for asker in askers:
        asker.start()
    try:
        yield
    finally:
        ended.set()
        for asker in askers:
            asker.join()


@contextmanager
def nothing_at_all(world: World, seven: bytes) -> Iterator[None]:
    time.sleep(10 * SCRAPE_S)
    yield


@contextmanager
def wrong_keys(world: World, seven: bytes) -> Iterator[None]:
    assert {world.predict(seven, **{"X-Api-Key": "wrong"}) for _ in range(60)} == {401}
    yield


@contextmanager
def a_greedy_client(world: World, seven: bytes) -> Iterator[None]:
    key, answers = {"X-Api-Key": world.front.add_client("greedy")}, list[int]()
    ask = lambda: answers.append(world.front.request("GET", "/v2", key).status_code)  # noqa: E731
    # A count that Prometheus first sees after it rose has not risen, for a rule.
    assert wait_until(lambda: world.prometheus.query('vision_front_requests_total{client="greedy"} == 0'), PATIENCE_S)
    with keep_busy(ask, 8, 0):
        assert wait_until(lambda: answers.count(429) > 40, PATIENCE_S)
    yield


@contextmanager
def clients_faults(world: World, seven: bytes) -> Iterator[None]:
    assert {world.predict(GARBAGE) for _ in range(150)} == {400}
    yield


@contextmanager
def a_model_that_fails(world: World, seven: bytes) -> Iterator[None]:
    assert {world.ask_directly(picture_of(raise_an_error)) for _ in range(6)} == {500}
    yield


@contextmanager
def a_slow_model(world: World, seven: bytes) -> Iterator[None]:
    slow = picture_of(sleep_a_while)
    with keep_busy(lambda: world.predict(slow), 16, 0.01):
        yield


@contextmanager
def a_burst(world: World, seven: bytes) -> Iterator[None]:
    slow = picture_of(sleep_a_while)
    with keep_busy(lambda: world.predict(slow), BURST, 3.0):
        yield


@contextmanager
def a_killed_worker(world: World, seven: bytes) -> Iterator[None]:
    psutil.Process(world.service.worker_pids("digits")[0]).kill()
    yield
    assert wait_until(lambda: are_ready(world, "digits", 2), PATIENCE_S, 0.5)


def are_ready(world: World, model: str, count: int) -> bool:
    entries = world.service.server.client.describe(model)
    return [worker["status"] for entry in entries for worker in entry["workers"]] == ["READY"] * count


@contextmanager
def an_upgrade(world: World, seven: bytes) -> Iterator[None]:
    world.service.server.client.register("digits_2.mar", 1, 8, 20)
    world.service.server.client.set_default("digits", "2.0")
    yield


@contextmanager
def a_way_back(world: World, seven: bytes) -> Iterator[None]:
    world.service.server.client.set_default("digits", "1.0")
    yield
    world.service.server.client.unregister("digits", "2.0")


@contextmanager
def another_answer(world: World, seven: bytes) -> Iterator[None]:
    world.service.server.client.register("wrong.mar", 1, 1, 1)
    yield
    world.service.server.client.unregister("wrong", "1.0")


@contextmanager
def other_pictures(world: World, seven: bytes) -> Iterator[None]:
    client = world.service.server.client
    client.register("sampled.mar", 1, 8, 1)
    for path in [*(ROOT / "examples" / "photographs").glob("*.jpg")] * 2:
        assert world.service.post("sampled", path.read_bytes(), OCTETS).ok
    yield
    client.unregister("sampled", "1.0")


@contextmanager
def a_model_that_cannot_load(world: World, seven: bytes) -> Iterator[None]:
    client = world.service.server.client
    given = {"url": "broken.mar", "initial_workers": "1", "synchronous": "false"}
    client._manage("POST", "/models", params=given)
    yield
    client.unregister("broken", None)


@contextmanager
def a_killed_front(world: World, seven: bytes) -> Iterator[None]:
    for process in nginx_processes(world.front):
        process.kill()
    yield
    world.front.front.start()


@contextmanager
def an_old_token(world: World, seven: bytes) -> Iterator[None]:
    path = world.service.folder / "key_file.json"
    keys = path.read_text(encoding="utf-8")
    document = json.loads(keys)
    document["management"]["expiration time"] = "2026-01-01T00:00:00.123456Z"
    path.write_text(json.dumps(document), encoding="utf-8")
    yield
    path.write_text(keys, encoding="utf-8")


@contextmanager
def an_old_certificate(world: World, seven: bytes) -> Iterator[None]:
    front = world.front.front
    kept = [(path, path.read_bytes()) for path in (front.certificate, front.certificate_key)]
    options = ["-nodes", "-days", "5", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    out = ["-keyout", str(front.certificate_key), "-out", str(front.certificate)]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", *options, *out], check=True, capture_output=True)
    front.reload()
    yield
    for path, content in kept:
        path.write_bytes(content)
    front.reload()


@contextmanager
def a_broken_file_of_keys(world: World, seven: bytes) -> Iterator[None]:
    path = world.front.front.folder / "clients.map"
    content = path.read_bytes()
    path.write_bytes(b"torn")
    yield
    path.write_bytes(content)


@contextmanager
def a_full_disk(world: World, seven: bytes) -> Iterator[None]:
    store = str(world.service.model_store)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", store], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        Path(store, "filling").write_bytes(bytes(980_000))
        yield
    finally:
        subprocess.run(["umount", store], check=True)


@contextmanager
def a_damaged_file_of_counts(world: World, seven: bytes) -> Iterator[None]:
    folder = metrics_folder(world.service.server.temporary)
    path = folder / "counter_1-1.db"  # of a worker that ended
    path.write_bytes(b"\x20\0\0\0" + bytes(4) + b"\x7f" * 100)
    yield
    path.unlink(missing_ok=True)


@contextmanager
def no_place_for_counts(world: World, seven: bytes) -> Iterator[None]:
    """Fill a disk that holds counts of workers that ended: what cannot be merged is read as it is."""
    folder = metrics_folder(world.service.server.temporary)
    before = count_requests(world)
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        for name, content in kept.items():
            (folder / name).write_bytes(content)
        with suppress(OSError), (folder / "filling").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        yield
        [exporter] = find_exporters(world.config, world.service.server.temporary)
        assert exporter.is_running()
        assert count_requests(world) >= before
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def count_requests(world: World) -> float:
    return sum(float(row["value"][1]) for row in world.prometheus.query("vision_requests_total"))


@contextmanager
def a_halted_exporter(world: World, seven: bytes) -> Iterator[None]:
    [process] = find_exporters(world.config, world.service.server.temporary)
    process.suspend()
    yield
    assert mend_exporter(world.config) == "the exporter of metrics no longer answered, and was started again"


@contextmanager
def a_killed_exporter(world: World, seven: bytes) -> Iterator[None]:
    [process] = find_exporters(world.config, world.service.server.temporary)
    process.kill()
    yield
    assert "was started again" in str(mend_exporter(world.config))


@contextmanager
def a_killed_frontend(world: World, seven: bytes) -> Iterator[None]:
    process = world.service.server.process()
    assert process is not None
    process.kill()
    wait_until(lambda: "VisionServerDown" in world.prometheus.firing(), PATIENCE_S, 1)
    world.service.server.start(PATIENCE_S, lambda step: None)
    yield


@contextmanager
def a_drain(world: World, seven: bytes) -> Iterator[None]:
    draining = threading.Thread(target=lambda: stop_drained(world.service.server, 10.0 * SCRAPE_S, lambda step: None))
    draining.start()
    yield
    draining.join()


# Each fault with the alerts that it has to fire, and those that may fire with them on a machine that is busy.
FAULTS: list[tuple[Fault, set[str], set[str]]] = [
    (nothing_at_all, set(), set()),
    (wrong_keys, {"VisionUnknownKeys"}, set()),
    (a_greedy_client, {"VisionClientLimited"}, set()),
    (clients_faults, {"VisionRefusedRequests"}, set()),
    (an_old_certificate, {"VisionCertificateEnds"}, set()),
    (an_old_token, {"VisionTokenEnded"}, set()),
    (a_full_disk, {"VisionDiskFull"}, set()),
    (a_broken_file_of_keys, {"VisionScrapeFailed"}, set()),
    (a_model_that_fails, {"VisionInternalErrors"}, set()),
    (an_upgrade, {"VisionDefaultVersionChanged"}, set()),
    (a_way_back, {"VisionDefaultVersionChanged"}, set()),
    (another_answer, {"VisionGoldenPredictionWrong"}, set()),
    (other_pictures, {"VisionScoresShifted"}, set()),
    (a_damaged_file_of_counts, {"VisionScrapeFailed"}, set()),
    (no_place_for_counts, {"VisionDiskFull"}, {"VisionWorkerEnded"}),
    (a_killed_exporter, {"VisionExporterDown"}, set()),
    (a_halted_exporter, {"VisionExporterDown"}, set()),
    (a_killed_front, {"VisionFrontDown"}, set()),
    (a_killed_worker, {"VisionWorkerEnded"}, {"VisionWorkersMissing"}),
    (a_model_that_cannot_load, {"VisionWorkersMissing"}, {"VisionWorkerEnded"}),
    (a_slow_model, {"VisionSlow", "VisionBatchSlow"}, set()),
    (a_burst, {"VisionQueueLong", "VisionFrontFailures"}, {"VisionSlow", "VisionBatchSlow"}),
    (
        a_killed_frontend,
        {"VisionServerDown", "VisionServerRestarted"},
        {"VisionExporterDown", "VisionFrontFailures", "VisionWorkersMissing"},
    ),
    (a_drain, {"VisionDraining"}, {"VisionFrontFailures", "VisionExporterDown"}),
]


@pytest.mark.parametrize(
    ("fault", "expected", "beside"), FAULTS, ids=[fault.__name__.replace("_", " ") for fault, _, _ in FAULTS]
)
def test_a_fault_fires_its_alerts_and_no_others(
    world: World, seven: bytes, fault: Fault, expected: set[str], beside: set[str]
) -> None:
    prometheus = world.prometheus
    assert wait_until(lambda: not prometheus.firing() & expected, PATIENCE_S, 1), "an earlier fault lasts"
    time.sleep(1.5 * SCRAPE_S)
    before, began = prometheus.firing(), time.time()
    with fault(world, seven):
        wait_until(lambda: expected <= prometheus.fired_since(began), PATIENCE_S, 1)
        took_s = time.time() - began
        time.sleep(2 * SCRAPE_S)
        fired = prometheus.fired_since(began) - before
    print(f"{fault.__name__}: {sorted(fired)} after {took_s:.1f} s")
    assert expected <= fired <= expected | beside | world.slow_since(began)


def list_queries() -> Iterator[tuple[str, str, str]]:
    """Yield dashboard, panel and expression of all queries, as Grafana sends them when all is chosen."""
    for path in sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel["targets"]:
                yield path.stem, panel["title"], target["expr"].replace("$instance", ".*").replace("$model", ".*")


def test_every_panel_of_every_dashboard_has_data(world: World) -> None:
    empty = []
    for name, title, expression in list_queries():
        rows = world.prometheus.query_range(expression, world.since)
        if not any(value != "NaN" for row in rows for _, value in row["values"]):
            empty.append(f"{name}: {title}: {expression}")
    assert empty == []


@pytest.mark.parametrize(
    ("title", "labels", "seen"),
    [
        ("Workers", {"model": "digits", "version": "1.0"}, {1.0, 2.0}),
        ("Default version", {"model": "digits", "version": "1.0"}, {0.0, 1.0}),
        ("Default version", {"model": "digits", "version": "2.0"}, {0.0, 1.0}),
        ("Golden prediction is right", {"model": "wrong"}, {0.0}),
        ("Front runs", {}, {0.0, 1.0}),
        ("Servers that answer", {}, {0.0, 1.0}),
        ("Starts and stops", {}, {0.0, 1.0}),
    ],
    ids=["a killed worker", "an upgrade", "its way back", "another answer", "the front", "the server", "a drain"],
)
def test_an_event_is_seen_in_its_panel(world: World, title: str, labels: dict[str, str], seen: set[float]) -> None:
    expressions = [expression for _, found, expression in list_queries() if found == title]
    rows = [row for expression in expressions for row in world.prometheus.query_range(expression, world.since)]
    values = {float(value) for row in rows if labels.items() <= row["metric"].items() for _, value in row["values"]}
    assert seen <= values


def test_a_burst_is_seen_in_the_panel_of_waiting_requests(world: World) -> None:
    [expression] = [text for name, title, text in list_queries() if (name, title) == ("fleet", "Waiting requests")]
    rows = world.prometheus.query_range(expression, world.since)
    assert max(float(value) for row in rows for _, value in row["values"]) > QUEUE / 2
