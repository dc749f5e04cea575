"""Several machines on loopback, each a front before a server that answers as it is told, and a front before them."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from http_fakes import Answer, Request, serve_requests

from e2e.conftest import ROOT
from mar_tools.serving.config_file import with_values

from .conftest import Running, run_front, write_tokens

OF_THE_SERVER = b"its own say"
WORKER = {"status": "READY"}
ORIGIN = "https://app.example.com"
SETTINGS_OF_ALL = {
    "answer_timeout_s": 2, "playground": True, "allowed_origins": [ORIGIN],
    "requests_per_s": 2000, "burst": 1000, "concurrent_requests": 32,
}  # fmt: skip


@dataclass
class Told:
    """In the place of a TorchServe. status: of a prediction, 0 breaks the connection. ready: of its worker."""

    status: int = 200
    ready: bool = True
    asked: int = 0  # how many predictions
    bytes_got: int = 0  # of the latest

    def answer(self, request: Request) -> Answer:
        path = request.path.partition("?")[0]
        if path == "/models":
            return Answer(200, json.dumps({"models": [{"modelName": "digits"}]}).encode())
        if path.startswith("/models/"):
            workers = [WORKER] if self.ready else []
            return Answer(200, json.dumps([{"modelVersion": "1.0", "minWorkers": 1, "workers": workers}]).encode())
        self.asked += 1
        self.bytes_got = len(request.body)
        return Answer(self.status, OF_THE_SERVER)


@dataclass(frozen=True)
class Machine:
    """A front, and what it stands before."""

    front: Running
    told: Told

    @property
    def address(self) -> str:
        return self.front.front.url.removeprefix("https://")


@dataclass(frozen=True)
class Fleet:
    """A front before machines. They and the front know the same clients."""

    front: Running
    machines: tuple[Machine, ...]


@contextmanager
def run_machine(folder: Path) -> Iterator[Machine]:
    told = Told()
    with serve_requests(told.answer) as url:
        config = folder / "config.properties"
        addresses = {"inference_address": url, "management_address": url}
        config.write_text(with_values((ROOT / "config.properties").read_text(), addresses))
        write_tokens(folder)
        with run_front(folder, config, **SETTINGS_OF_ALL) as front:
            yield Machine(front, told)


@contextmanager
def run_balancer(folder: Path, machines: list[Running], **changes: Any) -> Iterator[Running]:
    """Run a front before these fronts, which then know the clients of the first, as docs/operate/fleet.md says."""
    trusted = folder / "machines.pem"
    trusted.write_text("".join(machine.front.certificate.read_text() for machine in machines))
    addresses = [machine.front.url.removeprefix("https://") for machine in machines]
    to_machines = {"addresses": addresses, "certificate": "machines.pem", "name": "localhost"}
    with run_front(folder, machines[0].config, machines=to_machines, **changes) as balancer:
        for other in (*machines[1:], balancer):
            shutil.copy(machines[0].front.folder / "clients.map", other.front.folder)
            other.front.reload()
        yield Running(balancer.front, machines[0].key, balancer.settings, balancer.config)


@contextmanager
def run_fleet(folder: Path, count: int) -> Iterator[Fleet]:
    with ExitStack() as stack:
        machines = []
        for number in range(count):
            (folder / str(number)).mkdir()
            machines.append(stack.enter_context(run_machine(folder / str(number))))
        (folder / "balancer").mkdir()
        fronts = [machine.front for machine in machines]
        balancer = stack.enter_context(run_balancer(folder / "balancer", fronts, **SETTINGS_OF_ALL))
        yield Fleet(balancer, tuple(machines))
