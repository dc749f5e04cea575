"""Probes over HTTP follow the workers and their golden predictions, and restart no server that is only busy."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from e2e.conftest import Service, serve
from e2e.front.conftest import MODELS
from mar_tools.monitoring.readiness import OTHER, WRONG_TIMES
from mar_tools.serving.ports import find_free_ports
from mar_tools.waiting import wait_until

PATIENCE_S = 120
ELSEWHERE = "127.0.0.2"  # of this machine, and not what loopback alone listens at


@dataclass(frozen=True)
class Probed:
    """A server whose exporter others may ask."""

    service: Service
    port: int

    def ask(self, path: str) -> tuple[int, str]:
        answer = requests.get(f"http://{ELSEWHERE}:{self.port}{path}", timeout=30)
        return answer.status_code, answer.text.strip()

    def becomes(self, path: str, status: int) -> str:
        """Wait for a status, and return what is said with it."""
        assert wait_until(lambda: self.ask(path)[0] == status, PATIENCE_S), self.ask(path)
        return self.ask(path)[1]

    def count(self, result: str) -> float:
        """Return how many golden predictions came to that."""
        families = text_string_to_metric_families(self.ask("/metrics")[1])
        samples = [sample for family in families for sample in family.samples]
        return sum(
            s.value for s in samples if s.name == "vision_golden_predictions_total" and s.labels["result"] == result
        )


@pytest.fixture(scope="module")
def probed(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probed]:
    [port] = find_free_ports(1)
    changes = {"models": MODELS, "metrics_port": str(port), "metrics_host": "0.0.0.0", "metrics_golden_s": "1"}
    with serve([archives / "digits.mar"], tmp_path_factory.mktemp("probed"), **changes) as service:
        yield Probed(service, port)


def test_it_is_ready_when_its_workers_gave_their_golden_prediction(probed: Probed) -> None:
    assert probed.becomes("/ready", 200) == "yes"
    assert probed.ask("/live") == (200, "yes")
    assert probed.count("right") >= 1


def test_it_is_not_ready_without_a_worker(probed: Probed) -> None:
    probed.service.server.client.scale("digits", "1.0", 0)
    assert probed.becomes("/ready", 503) == "digits 1.0: no worker is ready"
    assert probed.ask("/live")[0] == 200
    probed.service.server.client.scale("digits", "1.0", 2)
    probed.becomes("/ready", 200)


def test_it_is_not_ready_but_alive_while_it_drains(probed: Probed) -> None:
    mark = probed.service.server.drain_file
    mark.touch()
    try:
        assert probed.ask("/ready") == (503, "the server is about to stop")
        assert probed.ask("/live")[0] == 200
    finally:
        mark.unlink()
    probed.becomes("/ready", 200)


def test_workers_that_are_too_busy_to_answer_in_time_are_alive_and_ready(probed: Probed) -> None:
    probed.becomes("/ready", 200)
    with stopped(probed.service.worker_pids("digits")):
        late = probed.count("late")
        assert wait_until(lambda: probed.count("late") > late, PATIENCE_S)
        assert probed.ask("/live") == probed.ask("/ready") == (200, "yes")


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        psutil.Process(pid).send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            psutil.Process(pid).send_signal(signal.SIGCONT)


def test_a_model_that_computes_something_else_gets_no_requests_and_is_started_again_later(probed: Probed) -> None:
    probed.becomes("/ready", 200)
    [golden] = {Path(psutil.Process(pid).cwd()) / "golden.json" for pid in probed.service.worker_pids("digits")}
    content = golden.read_text()
    wrong = json.loads(content)
    wrong["found"][0]["score"] = 0.01
    golden.write_text(json.dumps(wrong))
    try:
        assert probed.becomes("/ready", 503) == f"digits 1.0: {OTHER}"
        assert probed.becomes("/live", 503) == f"digits 1.0: {OTHER}, {WRONG_TIMES} times in a row"
    finally:
        golden.write_text(content)
    assert (probed.becomes("/live", 200), probed.becomes("/ready", 200)) == ("yes", "yes")


def test_an_archive_that_was_left_out_keeps_a_server_from_requests(archives: Path, tmp_path: Path) -> None:
    [port] = find_free_ports(1)
    broken = tmp_path / "broken.mar"
    broken.write_bytes((archives / "digits.mar").read_bytes()[:-1])
    changes = {"metrics_port": str(port), "metrics_host": "0.0.0.0"}
    folder = tmp_path / "server"
    folder.mkdir()
    with serve([archives / "digits.mar", broken], folder, **changes) as service:
        assert "broken.mar is not served: " in Probed(service, port).becomes("/ready", 503)
