"""A real TorchServe on free ports, with the shipped configuration and both example archives."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from conftest import build_without_timing

from mar_tools.serving.config_file import with_absolute_paths, with_values
from mar_tools.serving.ports import free_addresses
from mar_tools.serving.server import Server

from .on_ray import RayService, serve_on_ray, set_model

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
BATCH_DELAY_MS = 300  # long enough for requests that are sent together to share a batch
EAGER_DIGITS = "digits_eager"
# Of the same contract: the product's run asks TorchServe, the laboratory's Ray Serve.
BOTH = ("torchserve", pytest.param("ray", marks=pytest.mark.ray))


@dataclass(frozen=True)
class Service:
    """A running server, and how to ask it."""

    server: Server
    folder: Path
    url: str

    @property
    def token(self) -> str:
        return self.server.client.token("inference")

    def post(self, model: str, data: Any = None, headers: dict[str, str] | None = None, **arguments: Any) -> Any:
        return self.request("POST", f"/predictions/{model}", data=data, headers=headers, **arguments)

    def request(self, method: str, path: str, headers: Mapping[str, Any] | None = None, **arguments: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token}", **(headers or {})}
        response = requests.request(method, self.url + path, headers=headers, timeout=30, **arguments)
        if b"ExplanationsBusyError" not in response.content:
            return response
        time.sleep(int(response.headers["Retry-After"]))  # on a slow machine the explanation before took longer
        return self.request(method, path, headers, **arguments)

    def worker_pids(self, model: str) -> list[int]:
        return sorted(w["pid"] for entry in self.server.client.describe(model) for w in entry["workers"])

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.server.ports()['grpc_inference_port']}"

    @property
    def model_store(self) -> Path:
        return self.folder / "model_store"


Served = Service | RayService


def run_script(name: str, *arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """One of our commands, as a user runs it."""
    command = [sys.executable, str(ROOT / "scripts" / name), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def build_digits(folder: Path, **changes: Any) -> Path:
    """The digits classifier in eager fp32, with changes to its recipe: its archive, in the new `folder`."""
    shutil.copytree(EXAMPLES / "digits_classification", folder, ignore=shutil.ignore_patterns("__pycache__"))
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text()) | changes
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return build_without_timing(folder / "recipe.yaml", "eager", folder)


def write_configuration(folder: Path, **changes: str) -> Path:
    """The shipped config.properties with free ports, a batch delay that a test can rely on, and `changes`."""
    shipped = with_absolute_paths((ROOT / "config.properties").read_text(), ROOT)
    text = with_values(shipped, {**free_addresses(), "metrics_port": "0", **changes})
    text = re.sub(r'"maxBatchDelay": \d+', f'"maxBatchDelay": {BATCH_DELAY_MS}', text)
    config = folder / "config.properties"
    config.write_text(text)
    shutil.copy(ROOT / "log4j2.xml", folder)
    return config


@contextmanager
def serve(archives: list[Path], folder: Path, **changes: str) -> Iterator[Service]:
    """A server of these archives in a folder of its own. changes: of config.properties."""
    config = write_configuration(folder, **changes)
    (folder / "model_store").mkdir()
    for archive in archives:
        shutil.copy(archive, folder / "model_store")
    server = Server(config)
    server.start(timeout_s=120, announce=lambda step: None)
    try:
        yield Service(server, folder, f"http://127.0.0.1:{server.ports()['inference_address']}")
    finally:
        server.stop()


@pytest.fixture(scope="session")
def service(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serve(sorted(archives.glob("*.mar")), tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture(scope="session")
def cloud(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server as docs/use/protocols.md configures a container: one model, the platform's access control alone.

    It has TorchServe's own parts of the Open Inference Protocol too.
    """
    changes = {"disable_token_authorization": "true", "ts_open_inference_protocol": "true"}
    with serve([archives / "digits.mar"], tmp_path_factory.mktemp("cloud"), **changes) as service:
        yield service


@pytest.fixture(scope="session")
def eager_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of the digits classifier in eager fp32, which has gradients, as a model of its own: digits_eager."""
    folder, limits = tmp_path_factory.mktemp("eager") / "example", {"max_explanation_share": 1.0}
    return build_digits(folder, name=EAGER_DIGITS, limits=limits)


@pytest.fixture(scope="session")
def on_ray(archives: Path, eager_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayService]:
    """The same archives on Ray Serve, with `eager_digits` beside them, which is loaded on demand."""
    pytest.importorskip("ray.serve", reason="needs requirements/ray.txt", exc_type=ImportError)
    config = write_configuration(tmp_path_factory.mktemp("on_ray"))
    set_model(config, EAGER_DIGITS, marName=eager_digits.name, minWorkers=0, batchSize=8, maxBatchDelay=BATCH_DELAY_MS)
    with serve_on_ray(config, [*sorted(archives.glob("*.mar")), eager_digits]) as service:
        yield service


@pytest.fixture(scope="session")
def cloud_on_ray(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayService]:
    """One model on Ray Serve."""
    pytest.importorskip("ray.serve", reason="needs requirements/ray.txt", exc_type=ImportError)
    config = write_configuration(tmp_path_factory.mktemp("cloud_on_ray"))
    with serve_on_ray(config, [archives / "digits.mar"]) as service:
        yield service


@pytest.fixture(scope="session", params=BOTH)
def served(request: pytest.FixtureRequest) -> Any:
    """Either server, with both example archives: what is asked of it is the HTTP contract."""
    return request.getfixturevalue({"torchserve": "service", "ray": "on_ray"}[request.param])


@pytest.fixture(scope="session", params=BOTH)
def served_alone(request: pytest.FixtureRequest) -> Any:
    """Either server with one model, and without keys or tokens, as a container has it."""
    return request.getfixturevalue({"torchserve": "cloud", "ray": "cloud_on_ray"}[request.param])


@pytest.fixture(scope="session")
def seven() -> bytes:
    """A sample of the digits classifier that shows a 7."""
    return (EXAMPLES / "digits_classification" / "samples" / "seven.png").read_bytes()


@pytest.fixture(scope="session")
def scene() -> bytes:
    """A sample scene of the digits detector."""
    return scene_path().read_bytes()


def scene_path() -> Path:
    return sorted((EXAMPLES / "digits_detection" / "samples").glob("scene_4.*"))[0]


@pytest.fixture(scope="session")
def scene_truth() -> Any:
    truth = json.loads((EXAMPLES / "digits_detection" / "samples" / "truth.json").read_text())
    return truth[scene_path().name]
