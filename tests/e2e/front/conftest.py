"""A front with real nginx before a real TorchServe, and another before an upstream that fails as it is told."""

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml

from e2e.conftest import ROOT, Service, run_script, serve
from e2e.test_requests import OCTETS
from mar_tools.front.front import SETTINGS, Front
from mar_tools.front.nginx import NginxError, find_nginx
from mar_tools.serving.config_file import with_values
from mar_tools.serving.ports import find_free_ports
from mar_tools.waiting import wait_until

from .faults import Address, Upstream, upstream

JSON = {"Content-Type": "application/json"}
MAX_BODY = 1_000_000
TIMEOUT_S = 30
REQUESTS_PER_S, BURST, CONCURRENT = 200, 100, 32
HEADER_TIMEOUT_S = 3
REMEMBERED_S = 2.2  # longer than the front remembers an answer of the management API
# Two workers and a short delay; without the space that write_configuration looks for.
MODELS = (
    '{"digits":{"1.0":{"defaultVersion":true,"marName":"digits.mar","minWorkers":2,"maxWorkers":4,"batchSize":4,'
    '"maxBatchDelay":2}}}'
)
PREDICT = "/predictions/digits"


@dataclass(frozen=True)
class Running:
    """A front that runs, and the key of a client of it."""

    front: Front
    key: str
    settings: Path
    config: Path

    @property
    def address(self) -> Address:
        host, _, port = self.front.url.removeprefix("https://").rpartition(":")
        return host, int(port)

    def request(self, method: str, path: str, headers: Mapping[str, Any] | None = None, **arguments: Any) -> Any:
        """With the client's key, unless `headers` name another; a connection of its own."""
        headers = {"X-Api-Key": self.key, **(headers or {})}
        arguments.setdefault("verify", self.front.certificate)
        return requests.request(method, self.front.url + path, headers=headers, timeout=TIMEOUT_S, **arguments)

    def predict(self, image: bytes, query: str = "", **headers: str) -> Any:
        return self.request("POST", f"/predictions/digits{query}", {**OCTETS, **headers}, data=image)

    def add_client(self, name: str) -> str:
        key = self.front.clients.add(name)
        self.front.reload()
        return key

    def command(self, action: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        options = ("--folder", self.front.folder, "--settings", self.settings, "--config", self.config)
        return run_script("serve_front.py", action, *arguments, *options)

    def log(self) -> list[dict[str, Any]]:
        lines = (self.front.logs / "access.log").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def line_of(self, response: requests.Response) -> dict[str, Any]:
        """Of the log, which nginx writes when it has sent the answer."""
        number = response.headers["X-Request-Id"]
        found = wait_until(lambda: [line for line in self.log() if line["id"] == number], TIMEOUT_S)
        assert found, "the answer is not in the log"
        return found[0]


@pytest.fixture(scope="session")
def nginx() -> None:
    """The machine's own nginx, or Debian's without root."""
    try:
        find_nginx()
    except NginxError as error:
        fetched = subprocess.run(
            ["bash", str(ROOT / "deploy" / "nginx" / "fetch.sh")], capture_output=True, text=True, timeout=300
        )
        if fetched.returncode != 0:
            pytest.skip(f"{error}; fetch.sh: {fetched.stderr.strip()[-200:]}")


def write_settings(folder: Path, **changes: Any) -> Path:
    """Write the shipped front.yaml for a free port."""
    [port] = find_free_ports(1)
    settings = folder / "front.yaml"
    shipped = yaml.safe_load(SETTINGS.read_text())
    settings.write_text(yaml.safe_dump({**shipped, "listen": f"127.0.0.1:{port}", **changes}))
    return settings


@contextmanager
def run_front(folder: Path, config: Path, **changes: Any) -> Iterator[Running]:
    """changes: of the shipped front.yaml."""
    settings = write_settings(folder, **changes)
    front = Front(folder / "front", settings, config)
    key = front.start()
    assert key is not None
    try:
        yield Running(front, key, settings, config)
    finally:
        front.stop()


@pytest.fixture(scope="package")
def torchserve(nginx: None, archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    changes = {"models": MODELS, "max_request_size": str(MAX_BODY)}
    with serve([archives / "digits.mar"], tmp_path_factory.mktemp("torchserve"), **changes) as service:
        yield service


@pytest.fixture(scope="package")
def running(torchserve: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    limits = {
        "requests_per_s": REQUESTS_PER_S, "burst": BURST, "concurrent_requests": CONCURRENT,
        "header_timeout_s": HEADER_TIMEOUT_S, "body_timeout_s": HEADER_TIMEOUT_S, "answer_timeout_s": 10,
    }  # fmt: skip
    config = torchserve.folder / "config.properties"
    with run_front(tmp_path_factory.mktemp("front"), config, **limits) as running:
        yield running


@pytest.fixture(scope="package")
def told(nginx: None) -> Iterator[Upstream]:
    with upstream() as told:
        yield told


@pytest.fixture(scope="package")
def before_upstream(told: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A front before an upstream that fails as it is told, with tokens that a test can let expire."""
    folder = tmp_path_factory.mktemp("before upstream")  # a path may have spaces
    with run_front(folder, configure_upstream(folder, told), answer_timeout_s=1) as running:
        yield running


def configure_upstream(folder: Path, told: Upstream) -> Path:
    [closed] = find_free_ports(1)
    config = folder / "config.properties"
    addresses = {"inference_address": told.address, "management_address": f"http://127.0.0.1:{closed}"}
    config.write_text(with_values((ROOT / "config.properties").read_text(), addresses))
    write_tokens(folder)
    return config


def write_tokens(folder: Path, year: int = 2999) -> None:
    entry = {"key": "token-of-torchserve", "expiration time": f"{year}-01-01T00:00:00.123456Z"}
    keys = {"inference": entry, "management": entry, "API": {"key": "key-of-the-api"}}
    (folder / "key_file.json").write_text(json.dumps(keys))


def raw(method: str, path: str, *lines: str, body: bytes = b"") -> Callable[[str], bytes]:
    """A request of a client, once its key is known."""
    start = "".join(f"{line}\r\n" for line in (f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *lines))
    return lambda key: f"{start}X-Api-Key: {key}\r\n\r\n".encode() + body


def nginx_processes(running: Running) -> list[psutil.Process]:
    master = running.front.process()
    assert master is not None
    return [master, *master.children()]
