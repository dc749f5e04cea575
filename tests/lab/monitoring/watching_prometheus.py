"""A real Prometheus with the shipped rules, whose times are shortened: what takes minutes takes seconds."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml
from e2e.conftest import ROOT

from mar_tools.serving.ports import find_free_ports
from mar_tools.waiting import wait_until

SHIPPED = ROOT / "deploy" / "prometheus"
SHORTER = 5  # each time of the rules, and the 15 s between two scrapes
SCRAPE_S = 15 // SHORTER
DURATION = re.compile(r"(\[|offset |for: )(\d+)([smh])")
SECONDS = {"s": 1, "m": 60, "h": 3600}
START_S = 60.0


@dataclass(frozen=True)
class Prometheus:
    url: str
    process: "subprocess.Popen[bytes]"

    def query(self, expression: str) -> list[dict[str, Any]]:
        return self._ask("query", query=expression)

    def query_range(self, expression: str, since: float) -> list[dict[str, Any]]:
        return self._ask("query_range", query=expression, start=since, end=time.time(), step=SCRAPE_S)

    def firing(self) -> set[str]:
        return {row["metric"]["alertname"] for row in self.query('ALERTS{alertstate="firing"}')}

    def fired_since(self, since: float) -> set[str]:
        return {row["metric"]["alertname"] for row in self.query_range('ALERTS{alertstate="firing"}', since)}

    def _ask(self, kind: str, **parameters: object) -> list[dict[str, Any]]:
        answer = requests.get(f"{self.url}/api/v1/{kind}", params=parameters, timeout=30).json()  # type: ignore[arg-type]
        assert answer["status"] == "success", answer
        return list(answer["data"]["result"])


def shorten(rules: str) -> str:
    return DURATION.sub(lambda found: f"{found[1]}{int(found[2]) * SECONDS[found[3]] // SHORTER}s", rules)


@contextmanager
def watch_with_prometheus(folder: Path, port: int) -> Iterator[Prometheus]:
    """Scrape an exporter at this port. Prometheus keeps what it learns in `folder`."""
    rules = shorten((SHIPPED / "rules.yml").read_text(encoding="utf-8"))
    (folder / "rules.yml").write_text(rules)
    settings = yaml.safe_load((SHIPPED / "prometheus.yml").read_text(encoding="utf-8"))
    settings["global"] = {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"}
    settings["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{port}"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    [own] = find_free_ports(1)
    url, program = f"http://127.0.0.1:{own}", shutil.which("prometheus")
    assert program is not None
    options = [f"--web.listen-address=127.0.0.1:{own}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [program, f"--config.file={folder / 'prometheus.yml'}", *options], stdout=log, stderr=log
        )
    try:
        assert wait_until(lambda: _is_ready(url), START_S), (folder / "prometheus.log").read_text()
        yield Prometheus(url, process)
    finally:
        process.terminate()
        process.wait()


def _is_ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/-/ready", timeout=5).ok
    except requests.ConnectionError:
        return False
