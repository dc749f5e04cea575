"""Which other servers are started."""

import pytest

from mar_tools.benchmarking.contest import choose_peers
from mar_tools.benchmarking.peers import find_peers
from vision_serving.errors import ConfigError


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["litserve"], ["litserve artifact", "litserve idiomatic"]),
        (["litserve-artifact", "litserve"], ["litserve artifact", "litserve idiomatic"]),
        (["stock-tuned", "mosec-idiomatic"], ["stock tuned", "mosec idiomatic"]),
    ],
)
def test_a_name_is_a_server_in_all_its_modes_or_in_one(names: list[str], chosen: list[str]) -> None:
    assert [f"{peer.name} {mode}" for peer, mode in choose_peers(names, find_peers())] == chosen


def test_an_unknown_server_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown server 'triton'; expected one of \['bentoml', .*'stock-tuned'\]"):
        choose_peers(["triton"], find_peers())
