"""lab/compare_servers.py without a server; with one it is tried by tests/lab/test_gpu_benchmark.py."""

import json
from pathlib import Path

import pytest
from conftest import RunHere

SCRIPT = "../lab/compare_servers.py"


def test_the_clients_speed_is_measured_without_a_server(run_here: RunHere, tmp_path: Path) -> None:
    finished = run_here(
        SCRIPT, "--check-client", "--connections", 1, 2, "--rounds", 2,
        "--round-s", 0.2, "--image-count", 20, "--json", tmp_path / "client.json", "--plots", tmp_path,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    document = json.loads((tmp_path / "client.json").read_text())
    assert [(entry["target"], entry["load"]["amount"]) for entry in document["results"]] == [
        ("bundled client", 1),
        ("bundled client", 2),
    ]
    assert all(entry["median"]["failed"] == 0 < entry["median"]["requests_per_s"] for entry in document["results"])
    assert all(len(entry["rounds"]) == 2 for entry in document["results"])
    assert (tmp_path / "throughput_latency.svg").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give the names of served models, or --check-client"),
        (("digits", "--check-client"), "give the names of served models, or --check-client"),
        (("digits", "--export", "exports/digits"), "expected MODEL=PATH, got 'exports/digits'"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(run_here: RunHere, arguments: tuple[str, ...], message: str) -> None:
    finished = run_here(SCRIPT, *arguments)
    assert finished.returncode == 2
    assert message in finished.stderr
