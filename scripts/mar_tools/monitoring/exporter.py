"""The exporter: an HTTP server of this machine alone that shows all metrics of one TorchServe to Prometheus."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
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
from mar_tools.monitoring.score_shifts import ScoreShifts
from mar_tools.monitoring.server_state import read_versions, show_server, show_versions
from mar_tools.monitoring.worker_files import WorkerFiles
from mar_tools.serving.address import read_address, state_folder
from mar_tools.serving.metrics_exporter import HEALTH, golden_interval_s
from mar_tools.serving.ports import LOOPBACK
from mar_tools.serving.processes import DRAIN_NAME
from mar_tools.serving.server import Server
from mar_tools.serving.torchserve_api import ServerError, TorchServeClient
from vision_serving.errors import ConfigError
from vision_serving.worker.server_settings import read_properties, read_text

SCRAPE_S = 5.0  # for TorchServe's answers, of the ten that Prometheus waits
LEARN_S = 5.0  # between two looks for versions that are new
GONE_S = 5.0  # between two looks whether the server's folder is still there


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
        self._failed: dict[str, bool] = {}
        self.torchserve_text = ""
        self._find_front()

    def collect(self) -> Iterator[Metric]:
        """Yield everything but TorchServe's own, which is in `torchserve_text` afterwards."""
        client = self._client.with_deadline(time.monotonic() + SCRAPE_S)
        self._failed = {}
        versions = self._try("management", lambda: read_versions(client))
        parts: dict[str, Callable[[], list[Metric]]] = {
            "workers": self._worker_files.read,
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
        for name, is_failed in self._failed.items():
            failed.add_metric([name], float(is_failed))
        yield failed

    def describe(self) -> list[Metric]:
        """Return nothing: a registry would else collect at once, and a server that starts has no answers yet."""
        return []

    def learn_on(self) -> None:
        """Learn what takes long, again and again. For a thread of its own."""
        asked = -float("inf")
        while True:
            due = bool(self._golden_s) and time.monotonic() - asked >= self._golden_s
            with suppress(ServerError, OSError, KeyError, ValueError):
                client = self._client.with_deadline(time.monotonic() + SCRAPE_S)
                versions = read_versions(client)
                self._shifts.learn(versions)
                self._facts.learn(versions, due)
                if due:
                    asked = time.monotonic()
            time.sleep(LEARN_S)

    def _try(self, name: str, call: Callable[[], Any]) -> Any:
        """Return what a call gives, None where it fails: one part must not hide the others."""
        try:
            found = call()
        except Exception as error:
            self._failed[name] = True
            if not isinstance(error, ServerError):
                print(f"{name}: {type(error).__name__}: {error}", flush=True)
            return None
        self._failed[name] = False
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
        clients = ClientKeys(Path(record.folder) / "clients.map").names() if record is not None else []
        certificate = show_certificate(Path(record.certificate)) if record is not None else []
        return [up, *self._front.show(clients), *certificate]


def read_own_metrics(client: TorchServeClient) -> str:
    """Return TorchServe's own metrics as it shows them. Raises ValueError where they are no metrics."""
    text = client.read_metrics()
    list(text_string_to_metric_families(text))
    return text


def serve(config: Path, folder: Path, port: int) -> None:
    """Serve until the server's folder is gone. Raises ConfigError where the port cannot be had."""
    metrics = ServerMetrics(config, folder)
    registry, lock = CollectorRegistry(), threading.Lock()

    def show() -> bytes:
        with lock:  # one reading at a time
            ours: bytes = generate_latest(registry)
            return ours + metrics.torchserve_text.encode()

    try:
        http = ThreadingHTTPServer((LOOPBACK, port), _make_handler(show))
    except OSError as error:
        raise ConfigError(f"port {port} (metrics_port in {config.name}): {error.strerror}; change the port") from error
    registry.register(metrics)
    http.daemon_threads = True
    for work in (http.serve_forever, metrics.learn_on):
        threading.Thread(target=work, daemon=True).start()
    while folder.is_dir():
        time.sleep(GONE_S)


def _make_handler(show: Callable[[], bytes]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 30

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, show(), CONTENT_TYPE_LATEST)
            elif path == HEALTH:
                self._answer(200, str(getpid()).encode(), "text/plain")
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
