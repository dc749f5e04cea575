"""Row B13 in a quick form: two servers behind one front are restarted in turn, and no request is lost."""

import random
from pathlib import Path

from lab.reliability.rolling_restarts import restart_in_turn
from lab.testbed.archives import build_archives
from lab.testbed.world import open_world


def test_a_rolling_restart_loses_no_request(tmp_path: Path) -> None:
    with open_world(build_archives(tmp_path), {}, rate=25.0) as world:
        episode = restart_in_turn(world, random.Random(0), requests=1000)
    assert episode.failures == []
    assert [problem for problem in episode.problems if "not of both" not in problem] == []
    assert episode.figures["lost"] == 0
