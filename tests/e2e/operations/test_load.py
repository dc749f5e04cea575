"""benchmark_model.py against TorchServe. Figures are not judged: machines may be busy."""

import json
import shutil
from pathlib import Path

from conftest import RunHere

from mar_tools.serving.config_file import with_values

from ..conftest import Service

FEW = ("--image-count", 20, "--rounds", 1)


def test_a_load_test_checks_every_answer_and_tells_what_it_cost(
    run_here: RunHere, service: Service, tmp_path: Path
) -> None:
    output = tmp_path / "results.json"
    finished = run_here(
        "benchmark_model.py", "digits", "digits_detection", "--config", service.server.config,
        "--connections", 2, "--rates", "50%", 5, "--in-process", 1, *FEW, "--round-s", 0.5,
        "--json", output, "--plots", tmp_path,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    document = json.loads(output.read_text())
    assert (document["client"], document["not_checked"]) == ("bundled", [])
    assert document["models"]["digits"]["workers"] == 1
    results = {(entry["target"], entry["load"]["kind"]): entry["median"] for entry in document["results"]}
    assert len(document["results"]) == 8
    for (_, kind), measured in results.items():
        assert measured["requests"] > 0
        assert (measured["failed"], measured["wrong"]) == (0, 0)
        assert measured["stages_ms"].keys() >= {"decode", "preprocess", "inference", "postprocess"}
        assert kind == "open" or measured["cpu_ms_per_request"] > 0  # in so short a window nothing may be answered
        assert measured["peak_rss_mb"] >= measured["peak_pss_mb"] > 100
        assert kind == "open" or measured["batch_size"] >= 1
    assert {path.name for path in tmp_path.glob("*.svg")} == {"throughput_latency.svg", "stages.svg", "servers.svg"}


def test_a_model_that_is_not_served_is_named(run_here: RunHere, service: Service) -> None:
    finished = run_here("benchmark_model.py", "nothing", "--config", service.server.config)
    assert finished.returncode == 1
    assert "nothing" in finished.stderr


def test_wrong_answers_fail_a_load_test(run_here: RunHere, service: Service, tmp_path: Path) -> None:
    """The archive that it compares with is another model's."""
    store = tmp_path / "model_store"
    store.mkdir()
    shutil.copy(service.model_store / "digits_detection.mar", store / "digits.mar")
    config = service.folder / "other.properties"
    config.write_text(with_values(service.server.config.read_text(), {"model_store": str(store)}))
    output = tmp_path / "results.json"
    finished = run_here(
        "benchmark_model.py", "digits", "--config", config, "--connections", 1, *FEW, "--round-s", 0.5, "--json", output
    )
    assert finished.returncode == 1
    assert "wrong answers: digits: " in finished.stderr
    (result,) = json.loads(output.read_text())["results"]
    assert result["median"]["wrong"] == result["median"]["requests"] > 0


def test_a_load_test_without_any_answer_fails(run_here: RunHere, service: Service, tmp_path: Path) -> None:
    no_image = tmp_path / "no_image.jpg"
    no_image.write_bytes(b"no image")
    finished = run_here(
        "benchmark_model.py", "digits", "--config", service.server.config, "--images", tmp_path, "--connections", 1,
        "--rounds", 1, "--round-s", 0.5,
    )  # fmt: skip
    assert finished.returncode == 1
    assert "no request was answered with 200: digits" in finished.stderr
