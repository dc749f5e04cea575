"""The other server: scripts/serve_on_ray.py on a free port, asked as a Service is."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests

from mar_tools.command_line import ROOT
from mar_tools.serving.config_file import rewrite, with_model
from mar_tools.waiting import wait_until

START_S = 300.0
STOP_S = 90.0
TIMEOUT_S = 60.0
TITLE_READS, TITLE_PAUSE_S = 3, 0.02


@dataclass(frozen=True)
class RayService:
    """A running server of this test's own cluster. key: of a client, empty where none is asked for."""

    process: "subprocess.Popen[bytes]"
    folder: Path
    url: str
    key: str = ""
    titles: dict[psutil.Process, str] = field(default_factory=dict)

    @property
    def token(self) -> str:
        return self.key

    def post(self, model: str, data: Any = None, headers: dict[str, str] | None = None, **arguments: Any) -> Any:
        return self.request("POST", f"/predictions/{model}", data=data, headers=headers, **arguments)

    def request(self, method: str, path: str, headers: dict[str, str] | None = None, **arguments: Any) -> Any:
        given = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        response = requests.request(
            method, self.url + path, headers={**given, **(headers or {})}, timeout=TIMEOUT_S, **arguments
        )
        if b"ExplanationsBusyError" not in response.content:
            return response
        time.sleep(int(response.headers["Retry-After"]))
        return self.request(method, path, headers, **arguments)

    def replicas(self, model: str) -> list[psutil.Process]:
        """Return the processes that have a version of this model, by the title that Ray gives them."""
        return self._find(f"ServeReplica:{model}-")

    def ingresses(self) -> list[psutil.Process]:
        return self._find("ServeReplica:vision:")

    def _find(self, title: str) -> list[psutil.Process]:
        """Ray writes a title anew at each call, and who reads it meanwhile finds none: what was seen once counts."""
        for _ in range(TITLE_READS):
            for process in self._family():
                with suppress(psutil.Error):
                    said = " ".join(process.cmdline())
                    if "ServeReplica:" in said:
                        self.titles[process] = said
            time.sleep(TITLE_PAUSE_S)
        alive = [process for process in self._family() if title in self.titles.get(process, "")]
        return sorted(alive, key=lambda process: process.pid)

    def worker_pids(self, model: str) -> list[int]:
        return [process.pid for process in self.replicas(model)]

    @property
    def config(self) -> Path:
        return self.folder / "config.properties"

    @property
    def model_store(self) -> Path:
        return self.folder / "model_store"

    @property
    def said(self) -> str:
        return (self.folder / "said.txt").read_text()

    def _family(self) -> list[psutil.Process]:
        family = psutil.Process(self.process.pid).children(recursive=True)
        return [process for process in family if not has_ended(process)]


def has_ended(process: psutil.Process) -> bool:
    """Return whether it is no more, or only waits for its parent to notice."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@contextmanager
def serve_on_ray(config: Path, archives: list[Path], *options: object, key: str = "") -> Iterator[RayService]:
    """A server of these archives, with a config.properties that is alone in its folder."""
    folder = config.parent
    (folder / "model_store").mkdir()
    for archive in archives:
        shutil.copy(archive, folder / "model_store")
    with (folder / "said.txt").open("wb") as output:
        command = [sys.executable, str(ROOT / "scripts" / "serve_on_ray.py"), "--config", str(config)]
        process = subprocess.Popen([*command, *map(str, options)], stdout=output, stderr=output)
    url = next(line.partition("=")[2] for line in config.read_text().splitlines() if line.startswith("inference_a"))
    service = RayService(process, folder, url, key)
    try:
        wait_until(lambda: "serving at" in service.said or process.poll() is not None, START_S)
        assert f"serving at {url}" in service.said, service.said
        yield service
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        for survivor in [*service._family(), process] if process.poll() is None else []:
            os.kill(survivor.pid, signal.SIGKILL)


def set_model(config: Path, name: str, version: str = "1.0", **settings: Any) -> None:
    """Write settings of a version into the `models` of a config.properties."""
    rewrite(config, lambda text: with_model(text, name, version, settings))
