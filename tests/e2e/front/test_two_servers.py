"""Two real servers behind one front: one is killed, both are restarted, and no client notices."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import Service, serve
from e2e.traffic import Comparison, keep_comparing
from mar_tools.waiting import wait_until

from .conftest import Running, run_front
from .fleets import run_balancer

START_S = 120.0  # on a busy machine; alone it is eight seconds
MODELS = (
    '{"digits":{"1.0":{"defaultVersion":true,"marName":"digits.mar","minWorkers":1,"maxWorkers":1,"batchSize":4,'
    '"maxBatchDelay":2}}}'
)
PAUSE_S = 0.05  # of each asker: the servers start on the same two cores
SOME = 40  # requests


@dataclass(frozen=True)
class Pair:
    """Two servers, the front before each, and the one before both."""

    servers: list[Service]
    fronts: list[Running]
    front: Running

    def restart(self, number: int) -> None:
        """As docs/operate/fleet.md says."""
        server, front = self.servers[number].server, self.fronts[number].front
        front.stop()
        server.stop()
        server.start(START_S, announce=lambda step: None)
        front.start()


@pytest.fixture(scope="module")
def pair(nginx: None, archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:

        def start(number: int) -> Service:
            served = serve([archives / "digits.mar"], tmp_path_factory.mktemp(f"server{number}"), models=MODELS)
            service = served.__enter__()
            stack.push(served.__exit__)
            return service

        servers = list(pool.map(start, range(2)))
        fronts = [
            stack.enter_context(run_front(tmp_path_factory.mktemp("front"), server.folder / "config.properties"))
            for server in servers
        ]
        front = stack.enter_context(run_balancer(tmp_path_factory.mktemp("balancer"), fronts))
        yield Pair(servers, fronts, front)


def wait_for_some(traffic: Comparison, pair: Pair, machines: list[int]) -> None:
    """Until there are so many answers more, of each of these machines too."""
    wanted = len(traffic.outcomes) + SOME
    before = [len(front.log()) for front in pair.fronts]
    assert wait_until(lambda: len(traffic.outcomes) >= wanted, START_S)
    assert wait_until(lambda: all(len(pair.fronts[m].log()) > before[m] for m in machines), START_S)


def test_one_server_is_killed_and_both_are_restarted_in_turn_without_a_lost_request(pair: Pair, seven: bytes) -> None:
    def ask() -> Any:
        time.sleep(PAUSE_S)
        response = pair.front.predict(seven)
        return response.status_code, response.json()

    expected = ask()
    assert expected[1]["classes"][0]["label"] == "7"
    with keep_comparing(ask, expected) as traffic:
        wait_for_some(traffic, pair, [0, 1])
        frontend = pair.servers[0].server.process()
        assert frontend is not None
        frontend.kill()
        wait_for_some(traffic, pair, [1])
        for number in (0, 1):
            pair.restart(number)
            wait_for_some(traffic, pair, [0, 1])
    assert traffic.wrong == []
    assert traffic.right > 4 * SOME
