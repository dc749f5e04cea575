"""The numbers of config.properties fit each other, and what does not is refused with its numbers."""

from pathlib import Path

import pytest

from mar_tools.serving.memory_bounds import MEDIUM, MIB, SMALL, MemoryBounds, read_bounds
from mar_tools.serving.server import Server
from vision_serving.errors import ConfigError
from vision_serving.worker.server_settings import read_properties

SHIPPED = read_properties((Path(__file__).parents[3] / "config.properties").read_text())
GIB = 1024 * MIB


@pytest.mark.parametrize(
    ("changes", "bounds"),
    [
        ({}, MemoryBounds(small=128, medium=16, large=5)),
        ({"vmargs": "-Xmx512m -Xmx4g -XX:MaxDirectMemorySize=1g"}, MemoryBounds(small=85, medium=10, large=3)),
        ({"vmargs": "-Xmx1G"}, MemoryBounds(small=85, medium=10, large=3)),
        ({"max_request_size": str(MIB // 2)}, MemoryBounds(small=256, medium=256, large=256)),
    ],
    ids=["shipped", "the last one counts", "direct memory as large as the heap", "nothing larger than small"],
)
def test_bodies_at_once_follow_from_the_memory(changes: dict[str, str], bounds: MemoryBounds) -> None:
    assert read_bounds(SHIPPED | changes) == bounds


@pytest.mark.parametrize("others", [0, 1, 2])
def test_all_lanes_full_fit_heap_and_direct_memory(others: int) -> None:
    bounds, largest = read_bounds(SHIPPED, others), int(SHIPPED["max_request_size"])
    held = bounds.small * SMALL + bounds.medium * MEDIUM + (bounds.large + others) * largest
    assert 2 * held <= GIB - 256 * MIB
    assert 4 * held <= 1536 * MIB


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_request_size": "100000000"}, "max_request_size=100000000 .* 1024 MiB .* 1536 MiB .* to 67108864"),
        ({"vmargs": "-Xmx256m"}, "max_request_size=26214400 .* 256 MiB"),
        ({"job_queue_size": "769"}, "job_queue_size=769 .* lower it to 768"),
    ],
    ids=["body", "heap", "queue"],
)
def test_a_start_with_numbers_that_do_not_fit_is_refused(changes: dict[str, str], message: str, tmp_path: Path) -> None:
    config = tmp_path / "config.properties"
    values = SHIPPED | changes | {"models": "{}"}
    config.write_text("".join(f"{key}={value}\n" for key, value in values.items()))
    with pytest.raises(ConfigError, match=message):
        Server(config).start(1, announce=lambda step: None)
