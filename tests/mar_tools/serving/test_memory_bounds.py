"""The numbers of config.properties fit each other, and what does not is refused with its numbers."""

from pathlib import Path

import pytest

from mar_tools.serving.memory_bounds import MEDIUM, MIB, SMALL, MemoryBounds, most_waiting, read_bounds
from mar_tools.serving.ports import free_addresses
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
        ({"vmargs": "-Xmx512m -XX:MaxHeapSize=1g"}, MemoryBounds(small=85, medium=10, large=3)),
        ({"max_request_size": str(MIB // 2)}, MemoryBounds(small=256, medium=256, large=256)),
    ],
    ids=[
        "shipped",
        "the last one counts",
        "direct as large as the heap",
        "other name of -Xmx",
        "nothing larger than small",
    ],
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
        ({"vmargs": "-Xmx64m"}, "max_request_size=26214400 .* 64 MiB .* they hold; raise both$"),
        ({"vmargs": "-Xmx256m"}, "max_request_size=26214400 .* 256 MiB"),
        ({"job_queue_size": "769"}, "job_queue_size=769 .* lower it to 768"),
        ({"vmargs": "-XX:MaxRAMPercentage=50.0"}, "expected the heap as -Xmx, got -XX:MaxRAMPercentage"),
        ({"max_request_size": "25M"}, "max_request_size: expected a whole number from 1 to 2147483647, got '25M'"),
        ({"max_request_size": "0"}, "max_request_size: .* got '0'"),
        ({"max_request_size": "3000000000"}, "max_request_size: .* got '3000000000'"),
        ({"job_queue_size": "many"}, "job_queue_size: .* got 'many'"),
        ({"job_queue_size": "1_0"}, "job_queue_size: .* got '1_0'"),
        ({"grpc_inference_port": "70700"}, "grpc_inference_port: .* to 65535, got '70700'"),
        ({"grpc_management_port": "x"}, "grpc_management_port: .* got 'x'"),
    ],
)
def test_a_start_with_numbers_that_do_not_fit_is_refused(changes: dict[str, str], message: str, tmp_path: Path) -> None:
    config = tmp_path / "config.properties"
    values = SHIPPED | free_addresses() | changes | {"models": "{}"}
    config.write_text("".join(f"{key}={value}\n" for key, value in values.items()))
    with pytest.raises(ConfigError, match=message):
        Server(config).start(1, announce=lambda step: None)


def test_more_explanations_than_fit_are_named_with_what_fits() -> None:
    assert read_bounds(SHIPPED, 9).large == 2
    with pytest.raises(ConfigError, match=r"^explanations_at_once=10 does not fit .* lower it to 9"):
        read_bounds(SHIPPED, 10)


@pytest.mark.parametrize("explanations", [0, 1, 2])
def test_a_body_of_the_size_that_is_advised_fits(explanations: int) -> None:
    with pytest.raises(ConfigError, match=r"^max_request_size=.*lower it to \d+") as refusal:
        read_bounds(SHIPPED | {"max_request_size": "100000000"}, explanations)
    advised = str(refusal.value).rpartition("lower it to ")[2].partition(",")[0]
    assert read_bounds(SHIPPED | {"max_request_size": advised}, min(explanations, 1)).large >= 2


def test_the_heap_is_a_quarter_of_what_the_container_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text(f"{GIB}\n")
    monkeypatch.setattr("mar_tools.machine.MEMORY_LIMITS", (limit,))
    assert most_waiting({}) == 1
    with pytest.raises(ConfigError, match="-Xmx of 256 MiB"):
        read_bounds({})
