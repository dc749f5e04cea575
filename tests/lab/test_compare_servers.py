"""lab/compare_servers.py: its client, its arguments, and the answers of a server that it compares."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import RunHere
from e2e.conftest import Service, run_script, serve

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


@pytest.fixture(scope="module")
def compared(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serve([archives / "digits.mar"], tmp_path_factory.mktemp("compared")) as compared:
        yield compared


def test_answers_of_another_model_are_wrong(compared: Service, archives: Path, tmp_path: Path) -> None:
    other = f"digits={archives / 'digits_detection.mar'}"
    finished = run_script(
        "../lab/compare_servers.py", "digits", "--config", compared.server.config, "--export", other,
        "--connections", 1, "--image-count", 20, "--rounds", 1, "--round-s", 0.5, "--json", tmp_path / "results.json",
    )  # fmt: skip
    assert finished.returncode == 1
    assert "wrong answers: digits: " in finished.stderr
    (result,) = json.loads((tmp_path / "results.json").read_text())["results"]
    assert result["median"]["wrong"] == result["median"]["requests"] > 0
