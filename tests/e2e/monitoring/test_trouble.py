"""Whatever is wrong with the exporter, predictions go on, and one line says what to do."""

import itertools
import socket
from pathlib import Path

import requests

from e2e.conftest import run_script, write_configuration
from e2e.test_requests import OCTETS
from mar_tools.serving.metrics_exporter import mend_exporter, metrics_folder
from mar_tools.serving.processes import find_exporters, wait_until_ended
from mar_tools.serving.server import Server

from .conftest import Monitored


def test_a_port_that_is_taken_costs_the_metrics_alone_until_it_is_free(
    archives: Path, tmp_path: Path, seven: bytes
) -> None:
    (tmp_path / "model_store").mkdir()
    (tmp_path / "model_store" / "digits.mar").symlink_to(archives / "digits.mar")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = Server(write_configuration(tmp_path, metrics_port=str(port), metrics_golden_s="0"))
        said: list[str] = []
        try:
            [model] = server.start(120, lambda step: None, said.append)
            assert model.healthy
            [line] = said
            assert line.startswith(f"port {port} (metrics_port in config.properties) is taken by process ")
            assert line.endswith("; stop it, or change the port and restart: predictions go on without metrics")
            assert server.client.predict("digits", seven).ok
            assert mend_exporter(server.config) == line
            other.close()
            assert mend_exporter(server.config) == "the exporter of metrics had ended, and was started again"
            assert "vision_requests_total" in requests.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
            [exporter] = find_exporters(server.config, server.temporary)
        finally:
            server.stop()
        assert wait_until_ended([exporter], 10) == []


def test_a_wrong_setting_is_named_and_the_running_server_goes_on(monitored: Monitored, seven: bytes) -> None:
    config = monitored.service.folder / "config.properties"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("metrics_port=", "metric_port="), encoding="utf-8")
    try:
        refused = run_script("serve_models.py", "restart", "--config", config)
    finally:
        config.write_text(text, encoding="utf-8")
    config.write_text(text.replace("metrics_port=", "metrics_port=no"), encoding="utf-8")
    try:
        told = mend_exporter(config)
    finally:
        config.write_text(text, encoding="utf-8")
    assert str(told).startswith("config.properties: metrics_port: expected ")
    assert str(told).endswith("; correct it: until then nobody starts the exporter of metrics again")
    said = "error: config.properties: unknown key 'metric_port'; did you mean 'metrics_port'?\n"
    assert (refused.returncode, refused.stderr) == (1, said)
    assert monitored.service.post("digits", seven, OCTETS).status_code == 200
    assert monitored.scrape().get("vision_up") == 1


def test_an_exporter_that_is_killed_is_replaced_and_its_counts_go_on(monitored: Monitored, seven: bytes) -> None:
    config, server = monitored.service.folder / "config.properties", monitored.service.server
    before = monitored.scrape()
    [exporter] = find_exporters(config, server.temporary)
    exporter.kill()
    assert monitored.front.predict(seven).status_code in (200, 429)
    assert monitored.service.post("digits", seven, OCTETS).status_code == 200
    assert mend_exporter(config) == "the exporter of metrics had ended, and was started again"
    assert mend_exporter(config) is None
    now = monitored.scrape().since(before)
    assert now.get("vision_requests_total", status="200") >= 1
    assert all(value >= 0 for (name, _), value in now.values.items() if name.endswith(("_total", "_count")))


def test_what_cannot_be_read_is_told_once_and_hides_nothing_else(monitored: Monitored, seven: bytes) -> None:
    keys = monitored.front.front.folder / "clients.map"
    pid = monitored.service.worker_pids("digits")[0]
    [file] = metrics_folder(monitored.service.server.temporary).glob(f"histogram_{pid}-*.db")
    content, before = keys.read_bytes(), monitored.scrape()
    keys.write_bytes(b"torn")
    file.write_bytes(b"\xff" * 3000)
    try:
        for _ in range(3):
            now = monitored.scrape()
    finally:
        keys.write_bytes(content)
    assert {part for (part,) in now.by("vision_scrape_failed", "part")} == {"front", "worker_files"}
    assert now.since(before).get("vision_requests_total") == 0
    log = (monitored.service.folder / "logs" / "exporter.log").read_text(encoding="utf-8").splitlines()
    assert [line.partition(":")[0] for line in log] == ["worker_files", "front"]
    assert file.name in log[0]
    answers = iter(lambda: monitored.service.post("digits", seven, OCTETS), None)
    assert any(answer.headers["X-Worker-Pid"] == str(pid) for answer in itertools.islice(answers, 1000))
    assert monitored.scrape().by("vision_scrape_failed", "part") == {}, "the next batch of a worker mends its file"
