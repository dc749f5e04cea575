"""Rows B1 to B12 in a quick form: a fault once, the times that are allowed multiplied, for this machine may be busy.

docs/evidence/reliability.md has what 20 repetitions showed; `python lab/run_chaos.py` measures them.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.reliability.episodes import make_healthy
from lab.reliability.malformed import run_malformed
from lab.reliability.rows import ROWS
from lab.reliability.soak import soak
from lab.testbed.archives import BROKEN, Archives, build_archives
from lab.testbed.world import World, open_world
from mar_tools.serving.torchserve_api import ServerError

RATE = 25.0  # requests/s: a busy machine has to keep up with one worker
PATIENCE = 4.0
LIKE_ANOTHER = {"B4-deadlock", "B4-exit"}  # of B4-loop and B4-segfault
OpenWorld = Callable[[Mapping[str, str]], World]


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Archives:
    return build_archives(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def world_with(archives: Archives) -> Iterator[OpenWorld]:
    """The server of some settings. One at a time, for two would share the cores: rows of the same come in a row."""
    opened: dict[tuple[tuple[str, str], ...], World] = {}
    with ExitStack() as stack:

        def find(settings: Mapping[str, str]) -> World:
            key = tuple(sorted(settings.items()))
            if key not in opened:
                stack.pop_all().close()
                opened.clear()
                opened[key] = stack.enter_context(open_world(archives, settings, rate=RATE))
                opened[key].patience = PATIENCE
            assert make_healthy(opened[key]) == []
            return opened[key]

        yield find


def test_registering_an_archive_that_cannot_load_fails_soon_and_leaves_no_worker(
    world_with: OpenWorld, archives: Archives
) -> None:
    world = world_with({})
    link = world.server.model_store() / archives.broken.name
    link.symlink_to(archives.broken)
    with pytest.raises(ServerError, match=r"cannot register broken\.mar: the workers of broken end while they load it"):
        world.server.client.register(link.name, 1, 4, 20)
    (described,) = world.server.client.describe(BROKEN)
    assert described["minWorkers"] == 0
    world.server.client.unregister(BROKEN, None)
    link.unlink()


def test_malformed_requests_harm_nobody(world_with: OpenWorld) -> None:
    finding = run_malformed(world_with({}), 300, 0, "", lambda step: None)
    assert finding.problems == (), finding


def test_a_soak_tells_what_every_process_took(world_with: OpenWorld, tmp_path: Path) -> None:
    """A few seconds say nothing of growth or of tails: that all was answered, they do."""
    soaked = soak(world_with({}), 0.15, 0, "", lambda step: None)
    assert {curve.name for curve in soaked.curves} == {"frontend", "worker 1", "worker 2"}
    assert all(len(curve.moments) > 10 for curve in soaked.curves)
    measured = soaked.finding.measured
    assert (measured["failed"], measured["hostile_answered_otherwise"], measured["restarts"]) == (0, 0, 0)
    assert measured["hostile"] > 0
    assert measured["aborted"] > 0


@pytest.mark.parametrize(
    "name",
    [
        row.name
        for row in sorted(ROWS.values(), key=lambda row: len(row.settings))
        if not row.once and row.name not in LIKE_ANOTHER
    ],
)
def test_a_fault_costs_what_it_may_and_no_more(name: str, world_with: OpenWorld) -> None:
    row = ROWS[name]
    episode = row.run(world_with(row.settings), random.Random(name))
    assert episode.problems == [], (episode.figures, episode.failures)
