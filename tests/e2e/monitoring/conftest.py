"""A real TorchServe with its exporter of metrics, behind a real front."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from e2e.conftest import Service, serve
from e2e.front.conftest import MODELS, Running, nginx, run_front
from mar_tools.serving.ports import find_free_ports

__all__ = ["nginx"]

MAX_BODY = 1_000_000
ALLOWED = 105  # requests at once; one more a second
Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Metrics:
    """What an exporter showed once: values by name and labels."""

    values: Mapping[tuple[str, Labels], float]

    def get(self, name: str, **labels: str) -> float:
        """Return the sum of all values that have these labels."""
        return sum(v for (n, found), v in self.values.items() if n == name and labels.items() <= dict(found).items())

    def by(self, name: str, *keys: str) -> dict[tuple[str, ...], float]:
        """Return what is not 0, by the values of these labels."""
        rows = [(tuple(dict(found)[key] for key in keys), v) for (n, found), v in self.values.items() if n == name]
        return {labels: sum(v for other, v in rows if other == labels) for labels, value in rows if value}

    def since(self, earlier: "Metrics") -> "Metrics":
        return Metrics({key: value - earlier.values.get(key, 0.0) for key, value in self.values.items()})


@dataclass(frozen=True)
class Monitored:
    """A server, its front, and where the exporter shows their metrics."""

    service: Service
    front: Running
    port: int

    def text(self) -> str:
        response = requests.get(f"http://127.0.0.1:{self.port}/metrics", timeout=30)
        response.raise_for_status()
        return response.text

    def scrape(self) -> Metrics:
        families = text_string_to_metric_families(self.text())
        samples = [sample for family in families for sample in family.samples]
        return Metrics({(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples})


@pytest.fixture(scope="package")
def monitored(nginx: None, archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    """Two workers of digits, and no golden predictions beside those of the start."""
    [port] = find_free_ports(1)
    models = json.loads(MODELS)
    models["digits"]["1.0"]["sample_share"] = 1.0
    sampled = json.dumps(models, separators=(",", ":"))  # write_configuration looks for a space
    changes = {"models": sampled, "metrics_port": str(port), "metrics_golden_s": "0", "max_request_size": str(MAX_BODY)}
    folder = tmp_path_factory.mktemp("monitored")
    with serve([archives / "digits.mar"], folder, **changes) as service:
        limits = {"requests_per_s": 1, "burst": ALLOWED, "concurrent_requests": 32}
        with run_front(tmp_path_factory.mktemp("front"), folder / "config.properties", **limits) as front:
            yield Monitored(service, front, port)
