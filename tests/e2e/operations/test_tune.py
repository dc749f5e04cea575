"""tune_model.py with real servers. Which settings are the best is not judged: tests run on busy machines."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import ts
from conftest import RunHere

from mar_tools.serving.config_file import model_section, with_absolute_paths, with_values
from mar_tools.serving.model_status import find_differences
from mar_tools.serving.server import Server
from mar_tools.tuning.deployment import TunedModel, apply_settings, current_settings
from mar_tools.tuning.search import Attempt
from mar_tools.tuning.tuner import Tuner

from ..conftest import ROOT, Service


@pytest.fixture(scope="module")
def config(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a server that does not run, with the digits classifier in its store and metrics of its own."""
    folder = tmp_path_factory.mktemp("tuned")
    shutil.copy(ROOT / "log4j2.xml", folder)
    shutil.copy(Path(ts.__file__).parent / "configs" / "metrics.yaml", folder)
    shipped = with_absolute_paths((ROOT / "config.properties").read_text(), ROOT)
    (folder / "config.properties").write_text(with_values(shipped, {"metrics_config": "metrics.yaml"}))
    (folder / "model_store").mkdir()
    shutil.copy(archives / "digits.mar", folder / "model_store")
    return folder / "config.properties"


def test_a_model_is_tuned_with_evidence_and_the_winner_is_written(run_here: RunHere, config: Path) -> None:
    before = current_settings(TunedModel.read(config.parent / "model_store" / "digits.mar", config))
    finished = run_here(
        "tune_model.py", "digits", "--p99-ms", 20000, "--budget-min", 0.15, "--trial-s", 0.5, "--config", config
    )
    assert finished.returncode == 0, finished.stderr
    document = json.loads((config.parent / "tuning" / "digits.json").read_text())
    assert document["trials"][0]["settings"] == asdict(before)
    assert document["trials"][0]["rate"] > 0
    decision = document["decision"]
    section = model_section(config.read_text(), "digits", "1.0")
    expected = decision["chosen"]["settings"] if decision else asdict(before)
    assert (section["minWorkers"], section["batchSize"]) == (expected["workers"], expected["batch_size"])
    assert ("threads" in section) == (decision is not None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing", "--p99-ms", 100], "no archive of nothing"),
        (["digits", "--p99-ms", 0], "--p99-ms: expected a number above 0"),
    ],
    ids=["unknown model", "no latency"],
)
def test_what_cannot_be_tuned_is_said(run_here: RunHere, config: Path, arguments: list[object], message: str) -> None:
    finished = run_here("tune_model.py", *arguments, "--config", config)
    assert finished.returncode != 0
    assert message in finished.stderr


def test_a_latency_that_no_settings_keep_is_said(
    run_here: RunHere, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tuner, "evaluate", lambda tuner, settings, to_beat: Attempt(settings=settings, seconds=1.0))
    finished = run_here("tune_model.py", "digits", "--p99-ms", 0.001, "--budget-min", 0.001, "--config", config)
    assert finished.returncode == 1
    assert "no settings kept 99 of 100 requests within 0.001 ms, or" in finished.stderr


def test_settings_are_applied_to_the_running_server(service: Service) -> None:
    server = Server(service.server.config)
    candidate = TunedModel.read(service.model_store / "digits.mar", server.config)
    apply_settings(server, candidate, current_settings(candidate))
    assert find_differences(server.status(), candidate.properties) == []
    assert all(entry.ready for entry in server.status())
