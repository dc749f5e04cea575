"""The process of a container of SageMaker, Vertex AI or Azure ML, asked as each of them asks."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cloud_contracts
import psutil
import pytest
import requests

from e2e.conftest import ROOT, run_script, write_configuration
from mar_tools.serving.ports import find_free_ports
from mar_tools.waiting import wait_until

READY_S = 60.0
SERVE = [sys.executable, str(ROOT / "scripts" / "serve_cloud.py"), "serve"]


class Container:
    """One that has its archive where Azure ML puts it, and the port and routes of Vertex AI. log: what it says."""

    def __init__(self, folder: Path, archive: Path) -> None:
        [port] = find_free_ports(1)
        brought = folder / "azureml-models" / "digits" / "1" / "models"
        brought.mkdir(parents=True)
        shutil.copy(archive, brought)
        brought.chmod(0o555)
        self._own = {"AIP_HTTP_PORT": str(port), "AZUREML_MODEL_DIR": str(brought.parent), **cloud_contracts.VERTEX}
        self.url, self.log = f"http://127.0.0.1:{port}", folder / "out.txt"
        self._command = [*SERVE, "--config", str(write_configuration(folder))]
        self.process = self.start()

    def start(self) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as output:
            return subprocess.Popen(self._command, env=os.environ | self._own, stdout=output, stderr=subprocess.STDOUT)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def pings(self, status: int) -> bool:
        return requests.get(f"{self.url}/ping", timeout=cloud_contracts.ANSWER_S).status_code == status

    def family(self) -> list[psutil.Process]:
        return list(psutil.Process(self.process.pid).children(recursive=True))


@pytest.fixture(scope="module")
def container(nginx: None, archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    running = Container(tmp_path_factory.mktemp("cloud"), archives / "digits.mar")
    family: list[psutil.Process] = []
    try:
        assert cloud_contracts.wait_until_healthy(running.url), running.said()
        family = running.family()
        yield running
    finally:
        if running.process.poll() is None:
            family += running.family()
            running.process.kill()
        running.process.wait()
        for process in family:
            if process.is_running():
                process.kill()


def test_sagemaker_is_answered(container: Container) -> None:
    cloud_contracts.speak_sagemaker(container.url)


def test_vertex_ai_is_answered(container: Container) -> None:
    cloud_contracts.speak_vertex_ai(container.url)


def test_azure_ml_is_answered(container: Container) -> None:
    cloud_contracts.speak_azure_ml(container.url)


def test_nothing_else_of_torchserve_is_open(container: Container) -> None:
    assert cloud_contracts.find_open_routes(container.url) == []


def test_without_a_worker_it_is_not_healthy(container: Container) -> None:
    """TorchServe's own /ping would say 200 all the time."""
    config = container.log.parent / "cloud" / "config.properties"
    for workers, status in (("0", 503), ("1", 200)):
        scaled = run_script("manage_models.py", "scale", "digits", "--workers", workers, "--config", config)
        assert scaled.returncode == 0, scaled.stderr
        assert wait_until(partial(container.pings, status), READY_S, 1.0), container.said()
    cloud_contracts.speak_sagemaker(container.url)


def test_a_second_one_on_the_same_state_changes_nothing(container: Container) -> None:
    """It would write other ports into the settings of the server that runs."""
    assert container.start().wait(cloud_contracts.ANSWER_S) == 1
    assert "another serve_cloud.py serves there; end that one by SIGTERM" in container.said()
    cloud_contracts.speak_sagemaker(container.url)
    status = run_script("serve_models.py", "status", "--config", container.log.parent / "cloud" / "config.properties")
    assert status.returncode == 0, status.stderr


def test_killed_it_leaves_nothing_behind_and_starts_again(container: Container) -> None:
    family = container.family()
    container.process.kill()
    container.process.wait()
    assert wait_until(lambda: not any(process.is_running() for process in family), READY_S), family
    container.process = container.start()
    assert cloud_contracts.wait_until_healthy(container.url), container.said()


def test_sigterm_ends_all_within_the_time_of_sagemaker(container: Container) -> None:
    family = container.family()
    container.process.send_signal(signal.SIGTERM)
    assert container.process.wait(cloud_contracts.SAGEMAKER_STOP_S) == 0, container.said()
    assert not [process for process in family if process.is_running()]


def test_a_front_that_cannot_start_ends_the_server_too(
    nginx: None, archives: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A platform that sees the container end gives no requests to it. Here nginx has another meaning for the route."""
    config = write_configuration(tmp_path_factory.mktemp("ends"))
    own = {"AIP_HTTP_PORT": str(find_free_ports(1)[0]), "AIP_HEALTH_ROUTE": "/error", "VISION_MODEL": "digits"}
    own["AZUREML_MODEL_DIR"] = str(archives)
    ended = subprocess.run([*SERVE, "--config", config], env=os.environ | own, capture_output=True, text=True)
    assert ended.returncode == 1, ended.stdout
    assert 'duplicate location "/error"' in ended.stderr
    assert "the front has ended" in ended.stdout, ended.stderr
