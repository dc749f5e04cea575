"""The exporter: an HTTP server that shows all metrics of one TorchServe to Prometheus, and answers probes."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from os import getpid
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from mar_tools.front.client_keys import ClientKeys
from mar_tools.front.front_record import read_front_record
from mar_tools.monitoring.deadlines import show_certificate, show_disks, show_tokens
from mar_tools.monitoring.front_log import FrontLog
from mar_tools.monitoring.model_facts import ModelFacts
from mar_tools.monitoring.readiness import LIVE_PATH, READY_PATH, Readiness
from mar_tools.monitoring.score_shifts import ScoreShifts
from mar_tools.monitoring.server_state import read_versions, show_server, show_versions
from mar_tools.monitoring.worker_files import WorkerFiles
from mar_tools.serving.address import read_address
from mar_tools.serving.metrics_exporter import HEALTH, golden_interval_s, metrics_host
from mar_tools.serving.processes import DRAIN_NAME
from mar_tools.serving.server import Server
from mar_tools.serving.torchserve_api import ServerError, TorchServeClient
from vision_serving.errors import ConfigError
from vision_serving.worker.server_settings import read_properties, read_text, state_folder

SCRAPE_S = 5.0  # for TorchServe's answers, of the ten that Prometheus waits
LEARN_S = 5.0  # between two looks for versions that are new
GONE_S = 5.0  # between two looks whether the server's folder is still there
IDLE_S = 10.0  # that a reader may be silent
MOST_READERS = 256  # at once; Prometheus is one
MOST_CHARS = 1000  # of a line about files


class ServerMetrics(Collector):
    """All metrics of the server of a config.properties. folder: where its workers write.

    What cannot be had is left out, and named by `vision_scrape_failed`.
    """

    def __init__(self, config: Path, folder: Path) -> None:
        self._config, self._folder = config.resolve(), folder
        self._address = read_address(self._config)
        self._client = TorchServeClient(self._address, time.monotonic())
        self._worker_files = WorkerFiles(folder)
        self._front: FrontLog | None = None
        server = Server(self._config)
        self._facts = ModelFacts(self._client, server.model_store(), self._is_draining)
        self._shifts = ScoreShifts(self._config)
        self._places = {"state": state_folder(self._config), "temporary": folder, "model_store": server.model_store()}
        self._golden_s = golden_interval_s(read_properties(read_text(self._config)))
        self.readiness = Readiness(
            self._config, self._client, self._facts, self._is_draining, asks_golden=bool(self._golden_s)
        )
        self._failed: dict[str, str | None] = {}
        self.torchserve_text = ""
        self._try("front", self._find_front)

    def collect(self) -> Iterator[Metric]:
        """Yield everything but TorchServe's own, which is in `torchserve_text` afterwards."""
        client = self._client.with_deadline(time.monotonic() + SCRAPE_S)
        versions = self._try("management", lambda: read_versions(client))
        parts: dict[str, Callable[[], list[Metric]]] = {
            "workers": self._show_workers,
            "server": lambda: show_server(self._config, self._folder.parent, versions),
            "versions": lambda: show_versions(client, versions or []),
            "models": self._facts.show,
            "samples": self._shifts.show,
            "front": self._show_front,
            "tokens": lambda: show_tokens(self._address.key_file),
            "disks": lambda: show_disks(self._places.items()),
        }
        for name, show in parts.items():
            yield from self._try(name, show) or []
        self.torchserve_text = self._try("torchserve", lambda: read_own_metrics(client)) or ""
        failed = GaugeMetricFamily("vision_scrape_failed", "1 for a part that could not be read.", labels=["part"])
        for name, reason in list(self._failed.items()):
            failed.add_metric([name], float(reason is not None))
        yield failed

    def describe(self) -> list[Metric]:
        """Return nothing: a registry would else collect at once, and a server that starts has no answers yet."""
        return []

    def learn_on(self) -> None:
        """Learn what takes long, again and again. For a thread of its own."""
        asked = -float("inf")
        while True:
            due = bool(self._golden_s) and time.monotonic() - asked >= self._golden_s
            if self._try("golden", partial(self._learn, due)) and due:
                asked = time.monotonic()
            time.sleep(LEARN_S)

    def _learn(self, due: bool) -> bool:
        """Return whether the server answered."""
        with suppress(ServerError):
            client = self._client.with_deadline(time.monotonic() + SCRAPE_S)
            versions = read_versions(client)
            self._shifts.learn(versions)
            self._facts.learn(versions, ask_all=due, ask_new=bool(self._golden_s))
            return True
        return False

    def _try(self, name: str, call: Callable[[], Any]) -> Any:
        """Return what a call gives, None where it fails: one part must not hide the others."""
        try:
            found = call()
        except Exception as error:
            self._note(name, f"{type(error).__name__}: {error}", is_told=not isinstance(error, ServerError))
            return None
        self._note(name, None)
        return found

    def _note(self, name: str, reason: str | None, is_told: bool = True) -> None:
        """Keep why a part cannot be read. Only what is new becomes a line: a fault may last for weeks."""
        if is_told and reason is not None and reason != self._failed.get(name):
            with suppress(OSError):  # of a full disk
                print(f"{name}: {reason}", flush=True)
        self._failed[name] = reason

    def _show_workers(self) -> list[Metric]:
        found = self._worker_files.read()
        damaged = [f"{name} counts nothing: {reason}" for name, reason in self._worker_files.damaged.items()]
        self._note("worker_files", "; ".join(damaged)[:MOST_CHARS] or None)
        return found

    def _is_draining(self) -> bool:
        return (self._folder.parent / DRAIN_NAME).exists()

    def _find_front(self) -> None:
        record = read_front_record(self._config)
        if record is not None and self._front is None:
            self._front = FrontLog(Path(record.folder) / "logs" / "access.log", self._folder)

    def _show_front(self) -> list[Metric]:
        record = read_front_record(self._config)
        if record is None and self._front is None:
            return []
        self._find_front()
        up = GaugeMetricFamily("vision_front_up", "1 while the front runs, 0 where it has ended by itself.")
        if record is not None:
            up.add_metric([], float(record.is_running()))
        assert self._front is not None
        self._front.read()
        clients = ClientKeys(Path(record.clients)).names() if record is not None else []
        certificate = show_certificate(Path(record.certificate)) if record is not None and record.certificate else []
        return [up, *self._front.show(clients), *certificate]


def read_own_metrics(client: TorchServeClient) -> str:
    """Return TorchServe's own metrics as it shows them. Raises ValueError where they are no metrics."""
    text = client.read_metrics()
    list(text_string_to_metric_families(text))
    return text


class Reading:
    """One reading for all who ask while it is made: many readers cost little more than one."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read, self._lock = read, threading.Lock()
        self._began, self._found = -float("inf"), b""

    def get(self) -> bytes:
        """Return a reading that began after this call did."""
        asked = time.monotonic()
        with self._lock:
            if self._began <= asked:
                began = time.monotonic()
                self._found, self._began = self._read(), began
            return self._found


def serve(config: Path, folder: Path, port: int) -> None:
    """Serve until the server's folder is gone. Raises ConfigError where the port cannot be had."""
    metrics, registry = ServerMetrics(config, folder), CollectorRegistry()

    def read() -> bytes:
        ours: bytes = generate_latest(registry)
        return ours + metrics.torchserve_text.encode()

    probes = {READY_PATH: metrics.readiness.find_obstacles, LIVE_PATH: metrics.readiness.find_lasting_faults}
    host = metrics_host(read_properties(read_text(config)))
    try:
        http = ReaderServer((host, port), _make_handler(Reading(read).get, probes))
    except OSError as error:
        raise ConfigError(f"port {port} (metrics_port in {config.name}): {error.strerror}; change the port") from error
    registry.register(metrics)
    for work in (http.serve_forever, metrics.learn_on):
        threading.Thread(target=work, daemon=True).start()
    while folder.is_dir():
        time.sleep(GONE_S)


class ReaderServer(ThreadingHTTPServer):
    """A thread for each reader. Of too many, the first one makes room: who only holds a connection keeps nobody out."""

    daemon_threads = True
    request_queue_size = MOST_READERS

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._readers: list[socket.socket] = []
        self._guard = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            if len(self._readers) >= MOST_READERS:
                with suppress(OSError):
                    self._readers.pop(0).shutdown(socket.SHUT_RDWR)
            self._readers.append(request)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        with self._guard, suppress(ValueError):  # it made room
            self._readers.remove(request)
        super().close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of readers that went away: a stack each would fill the log."""


def _make_handler(
    show: Callable[[], bytes], probes: Mapping[str, Callable[[], list[str]]] | None = None
) -> type[BaseHTTPRequestHandler]:
    """Return what answers with metrics, and by each probe with 200, or 503 and a line for each fault that it finds."""

    class Handler(BaseHTTPRequestHandler):
        timeout = IDLE_S

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, show(), CONTENT_TYPE_LATEST)
            elif path == HEALTH:
                self._answer(200, str(getpid()).encode(), "text/plain")
            elif probes and path in probes:
                faults = probes[path]()
                self._answer(503 if faults else 200, ("\n".join(faults or ["yes"]) + "\n").encode(), "text/plain")
            else:
                self._answer(404, b"metrics are at /metrics\n", "text/plain")

        def _answer(self, status: int, body: bytes, content_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: a line a scrape would fill the log."""

    return Handler
