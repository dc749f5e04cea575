"""deploy/container/compose.yaml, run by podman-compose as the page says: server, front and Prometheus.

Prometheus is Debian's, by the name that the file asks for. Grafana is left out: Debian has none.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from mar_tools.waiting import wait_until

from .container_tools import ROOT, ContainerTools

SERVICES = ("server", "front", "prometheus")
URL = "https://127.0.0.1:8443/predictions/digits"
SEVEN = ROOT / "examples" / "digits_classification" / "samples" / "seven.png"
READY_S = 300.0
PROMETHEUS = """
FROM localhost/base
RUN apt-get update -q && apt-get install -q -y --no-install-recommends prometheus && rm -rf /var/lib/apt/lists/* \\
    && install -d -o nobody -g nogroup /prometheus
VOLUME /prometheus
USER nobody
ENTRYPOINT ["/usr/bin/prometheus"]
"""
# Root here may not raise its limits, and podman would where a file names one of them.
HERE = "services: {server: {ulimits: {nproc: 4096}}, front: {ulimits: {nproc: 4096}}}"
# A network of its own, as the machine's may have another front at 8443, until standard input ends.
HOLD_NETWORK = "ip link set lo up && echo ready && read -r over"
# Asks, and prints the status and what is said. Standard input: URL, headers, path of a body, path of a certificate.
ASK = """
import json, sys, requests
url, headers, body, certificate = json.load(sys.stdin)
data = open(body, "rb").read() if body else None
answer = requests.request("POST" if body else "GET", url, headers=headers, data=data, verify=certificate, timeout=60)
print(answer.status_code, answer.text)
"""


@dataclass(frozen=True)
class Project:
    """network: the process that has that of the host of this project."""

    tools: ContainerTools
    file: Path
    network: str

    def compose(self, *words: str) -> str:
        own = ("nsenter", f"--net=/proc/{self.network}/ns/net", "timeout", str(READY_S), "podman-compose")
        files = ("--file", self.file, "--file", self.file.with_name("here.yaml"))
        return self.tools.call(*own, "--project-name", "vision", *files, *words)

    def container(self, service: str) -> str:
        return f"vision_{service}_1"

    def ask(self, url: str, process: str, headers: dict[str, str], body: str, certificate: str) -> tuple[int, str]:
        """Return status and text of an answer in the network of a process, 0 where nobody answers."""
        command = ["nsenter", f"--net=/proc/{process}/ns/net", sys.executable, "-c", ASK]
        given = json.dumps([url, headers, body, certificate])
        status, _, text = subprocess.run(command, input=given, capture_output=True, text=True).stdout.partition(" ")
        return int(status or 0), text

    def read_within(self, url: str) -> str:
        """Return what an address says in the network that all containers share."""
        return self.ask(url, self.tools.state_of(self.container("server"), "Pid"), {}, "", "")[1]

    def find_targets(self) -> dict[str, str]:
        """Return the health of all that Prometheus scrapes, by their job."""
        told = self.read_within("http://127.0.0.1:9090/api/v1/targets")
        targets: list[dict[str, Any]] = orjson.loads(told)["data"]["activeTargets"] if told else []
        return {target["labels"]["job"]: target["health"] for target in targets}


@contextmanager
def own_network() -> Iterator[str]:
    """Yield the number of a process that has a network of its own."""
    command = ["unshare", "--net", "bash", "-c", HOLD_NETWORK]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        yield str(holder.pid)


@pytest.fixture(scope="module")
def project(
    tools: ContainerTools, images: dict[str, str], archives: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    if shutil.which("podman-compose") is None:
        pytest.skip("needs podman-compose: pip install podman-compose, in an environment of its own")
    checkout = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "deploy", checkout / "deploy")
    (checkout / "model_store").mkdir()
    shutil.copyfile(archives / "digits.mar", checkout / "model_store" / "digits.mar")
    file = checkout / "deploy" / "container" / "compose.yaml"
    file.with_name("here.yaml").write_text(HERE)
    for name, image in images.items():
        tools.podman("tag", image, f"localhost/{name}")
    make_prometheus(tools, yaml.safe_load(file.read_text())["services"]["prometheus"]["image"], checkout)
    with own_network() as network:
        project = Project(tools, file, network)
        try:
            project.compose("up", "--no-build", "--detach", *SERVICES)
            yield project
        finally:
            project.compose("down", "--volumes")


def make_prometheus(tools: ContainerTools, name: str, folder: Path) -> None:
    if not tools.has(name.partition(":")[0]):
        (folder / "Prometheus").write_text(PROMETHEUS)
        tools.build_file(folder / "Prometheus", folder, name)


def test_the_front_answers_with_the_key_that_the_page_makes(project: Project) -> None:
    key = project.compose("exec", "front", "python", "scripts/serve_front.py", "add-client", "first").strip()
    certificate = str(project.file.parent / "front.pem")
    project.tools.podman("cp", f"{project.container('front')}:/state/front/certificate.pem", certificate)

    def ask(headers: dict[str, str]) -> tuple[int, str]:
        return project.ask(URL, project.network, {**headers, "Content-Type": "image/png"}, str(SEVEN), certificate)

    assert wait_until(lambda: ask({"X-Api-Key": key})[0] == 200, READY_S, 2.0), ask({"X-Api-Key": key})
    assert orjson.loads(ask({"X-Api-Key": key})[1])["classes"][0]["label"] == "7"
    assert ask({})[0] == 401


def test_prometheus_scrapes_all_that_its_file_names(project: Project) -> None:
    file = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    jobs = {job["job_name"]: "up" for job in file["scrape_configs"]}
    assert wait_until(lambda: project.find_targets() == jobs, READY_S, 2.0), project.find_targets()
    assert "vision_up 1" in project.read_within("http://127.0.0.1:8083/metrics")


def test_a_stop_ends_server_and_front_by_themselves(project: Project) -> None:
    project.compose("stop")
    ends = {name: project.tools.state_of(project.container(name), "ExitCode") for name in SERVICES}
    assert ends == dict.fromkeys(SERVICES, "0")
