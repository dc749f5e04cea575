"""B13: two servers behind one front, each with a front of its own, are restarted in turn while clients go on asking."""

import random
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml

from lab.reliability.episodes import FaultRow, describe_failures
from lab.testbed.findings import Episode
from lab.testbed.traffic import send_all
from lab.testbed.world import World, world_properties
from mar_tools.command_line import ROOT
from mar_tools.front.front import SETTINGS, Front
from mar_tools.serving.ports import LOOPBACK, find_free_ports
from mar_tools.serving.server import Server
from mar_tools.serving.temporary_server import START_TIMEOUT_S, temporary_server

REQUESTS = 20_000
CONNECTIONS = 8  # at a time. No rate: while one server starts, the other one has what is left of the same cores
CLIENT_TIMEOUT_S = 60.0
CALM_S = 3.0  # with both servers
NAME = "localhost"  # in the certificates of all fronts
# One client sends all the load, of which much may wait while a server starts.
LIMITS = {"requests_per_s": 1000, "burst": 1000, "concurrent_requests": 400, "connections_of_an_address": 2000}


@dataclass(frozen=True)
class Fleet:
    """Two servers, the front before each of them, and the front before both. key: of a client of all three."""

    servers: tuple[Server, ...]
    fronts: tuple[Front, ...]
    front: Front
    key: str

    def restart(self, number: int) -> None:
        """Restart a server as docs/operate/fleet.md says. Raises ServerError or NginxError."""
        self.fronts[number].stop()
        self.servers[number].stop()
        self.servers[number].start(START_TIMEOUT_S, lambda step: None)
        self.fronts[number].start()

    def logged(self) -> list[str]:
        """Return the machines that each request was sent to, in order, by the log of the front before both."""
        lines = (self.front.logs / "access.log").read_bytes().splitlines()
        return [str(orjson.loads(line)["machines"]) for line in lines]


@contextmanager
def open_fleet(world: World) -> Iterator[Fleet]:
    """Start another server like the world's, and three fronts. Raises ServerError or NginxError."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-")))
        another = temporary_server([world.archives.served], world_properties({}), ROOT / "log4j2.xml")
        servers = (world.server, stack.enter_context(another))
        fronts = tuple(_start(stack, folder / name, server) for name, server in zip("ab", servers, strict=True))
        trusted = folder / "machines.pem"
        trusted.write_text("".join(front.certificate.read_text(encoding="utf-8") for front in fronts), encoding="utf-8")
        addresses = [front.url.removeprefix("https://") for front in fronts]
        machines = {"addresses": addresses, "certificate": str(trusted), "name": NAME}
        front = _start(stack, folder / "all", world.server, machines=machines)
        key = fronts[0].clients.add("load")
        digests = (fronts[0].folder / "clients.map").read_text(encoding="utf-8")
        for known in (*fronts, front):
            (known.folder / "clients.map").write_text(digests, encoding="utf-8")
            known.reload()
        yield Fleet(servers, fronts, front, key)


def _start(stack: ExitStack, folder: Path, server: Server, **changes: Any) -> Front:
    """Start a front as it is shipped, but for its limits. Stop it with the stack."""
    folder.mkdir()
    shipped = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    own = {"listen": f"{LOOPBACK}:{find_free_ports(1)[0]}", **LIMITS, **changes}
    (folder / "front.yaml").write_text(yaml.safe_dump({**shipped, **own}), encoding="utf-8")
    front = Front(folder / "front", folder / "front.yaml", server.config)
    stack.callback(front.stop)
    front.start()
    return front


def restart_in_turn(world: World, choose: random.Random, requests: int = REQUESTS) -> Episode:
    """Restart one server after the other until so many requests are answered."""
    asks = [choose.choice(world.good) for _ in range(requests)]
    episode, restarts = Episode(patience=world.patience), 0
    with open_fleet(world) as fleet, ThreadPoolExecutor(1) as client:
        options = (CONNECTIONS, {"X-Api-Key": fleet.key}, CLIENT_TIMEOUT_S, fleet.front.certificate)
        begun = time.perf_counter()
        answers = client.submit(send_all, fleet.front.url, asks, *options)
        while not answers.done():
            time.sleep(CALM_S)
            fleet.restart(restarts % len(fleet.servers))
            restarts += 1
        exchanges = answers.result()
        addresses = [front.url.removeprefix("https://") for front in fleet.fronts]
        logged = fleet.logged()
    took_s = max(exchange.finished for exchange in exchanges) - begun
    lost = [exchange for exchange in exchanges if exchange.problem]
    episode.figures.update({"rate_per_s": round(requests / took_s, 1), "requests": requests, "restarts": restarts})
    episode.figures["longest_wait_s"] = round(max(exchange.latency_s for exchange in exchanges), 2)
    episode.figures["asked_a_second_machine"] = sum(len(set(_split(asked))) > 1 for asked in logged)
    for number, address in enumerate(addresses, 1):
        answered = sum(_split(asked)[-1] == address for asked in logged)
        episode.figures[f"answered_by_server_{number}"] = answered
        episode.require(answered > 0, f"server {number} answered nothing")
    episode.require(restarts >= len(addresses), f"{restarts} restarts, not of both servers")
    episode.failures += describe_failures(lost, begun)
    episode.bound("lost", len(lost), 0)
    return episode


def _split(asked: str) -> list[str]:
    return asked.replace(" : ", ", ").split(", ")


ROWS = (
    FaultRow(
        "B13",
        "a rolling restart: two servers behind one front, each stopped and started again in turn",
        f"none of {REQUESTS:,} requests is lost, though no client asks twice",
        restart_in_turn,
        once=True,
    ),
)
