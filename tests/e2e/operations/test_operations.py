"""A server's days, in order: a start beside bad archives, probes, a killed frontend, upgrades and a drained stop."""

import json
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
import requests
import yaml
from conftest import RunHere

from mar_tools.archives.archive import DIGESTS, MANIFEST
from mar_tools.archives.golden_prediction import GOLDEN
from mar_tools.serving import graceful_stop
from mar_tools.serving.processes import find_workers, wait_until_ended
from mar_tools.serving.server import Server
from vision_serving.worker.server_settings import read_model

from ..conftest import Service, run_script, write_configuration
from ..traffic import keep_asking, try_once
from .test_commands import listening

Change = Callable[[dict[str, Any]], None]
SLOW = {"X-Inference-Options": "method=occlusion; cells=16"}  # 289 inferences


def derive(archive: Path, target: Path, model: str, version: str, **changes: Change) -> Path:
    """The archive as another model or version, without its digests; changes: of its `golden` or its `config`."""
    with zipfile.ZipFile(archive) as packed, zipfile.ZipFile(target, "w") as derived:
        for entry in (entry for entry in packed.infolist() if entry.filename != DIGESTS):
            content = packed.read(entry)
            if entry.filename == MANIFEST:
                document = orjson.loads(content)
                document["model"].update(modelName=model, modelVersion=version)
                content = orjson.dumps(document)
            elif entry.filename == GOLDEN and "golden" in changes:
                document = orjson.loads(content)
                changes["golden"](document)
                content = orjson.dumps(document)
            elif entry.filename == "model-config.yaml" and "config" in changes:
                document = yaml.safe_load(content)
                changes["config"](document)
                content = yaml.safe_dump(document).encode()
            derived.writestr(entry.filename, content)
    return target


def expect_another_class(golden: dict[str, Any]) -> None:
    golden["found"][0]["class_id"] += 1


def name_an_unknown_backend(config: dict[str, Any]) -> None:
    config["handler"]["backend"] = "openvimo"


def explain_at_any_time(config: dict[str, Any]) -> None:
    config["handler"].setdefault("limits", {})["max_explanation_share"] = 1.0


@pytest.fixture(scope="module")
def operated(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two workers of digits, beside a model that cannot load and a file that is no archive; not started."""
    folder = tmp_path_factory.mktemp("operated")
    store = folder / "model_store"
    store.mkdir()
    shutil.copy(archives / "digits.mar", store)
    derive(archives / "digits.mar", store / "lame.mar", "lame", "1.0", config=name_an_unknown_backend)
    (store / "torn.mar").write_bytes(b"torn")
    section = {"defaultVersion": True, "marName": "digits.mar", "minWorkers": 2, "maxWorkers": 2, "batchSize": 4}
    models = json.dumps({"digits": {"1.0": {**section, "maxBatchDelay": 5}}})
    server = Server(write_configuration(folder, disable_token_authorization="true", models=models))
    yield Service(server, folder, f"http://127.0.0.1:{server.ports()['inference_address']}")
    server.stop()


@pytest.fixture
def run_on(run_here: RunHere, operated: Service) -> RunHere:
    """A command for the operated server."""
    return lambda name, *arguments: run_here(name, *arguments, "--config", operated.server.config)


def ask(operated: Service, seven: bytes, path: str = "/predictions/digits", **headers: str) -> requests.Response:
    return requests.post(operated.url + path, data=seven, headers={"Content-Type": "image/png", **headers}, timeout=60)


def test_what_is_good_is_served_and_what_is_bad_is_named(operated: Service, seven: bytes) -> None:
    started = run_script("serve_models.py", "start", "--config", operated.server.config)
    assert started.returncode == 1
    assert "torn.mar: not a readable archive" in started.stderr
    assert "model lame cannot load: unknown backend 'openvimo'" in started.stderr
    assert "golden" in started.stdout
    assert ask(operated, seven).json()["classes"][0]["label"] == "7"


def test_a_model_that_could_not_load_refuses_at_once(operated: Service, seven: bytes) -> None:
    assert ask(operated, seven, "/predictions/lame").status_code == 503


def test_status_and_probe_name_what_is_bad_and_why(run_on: RunHere) -> None:
    status = run_on("serve_models.py", "status", "--json")
    probe = run_on("health_probe.py", "--json")
    assert (status.returncode, probe.returncode) == (1, 1)
    for found in (json.loads(status.stdout), json.loads(probe.stdout)["models"]):
        models = {model["model"]: model for model in found}
        assert (models["digits"]["golden"], models["digits"]["healthy"]) == ("right", True)
        assert models["lame"]["problem"].startswith("cannot load: unknown backend 'openvimo'")
        assert "not a readable archive" in models["torn.mar"]["problem"]
    assert "lame 1.0: cannot load" in probe.stderr


def test_a_probe_of_one_model_does_not_mind_the_others(run_on: RunHere) -> None:
    probe = run_on("health_probe.py", "digits")
    assert (probe.returncode, probe.stdout.strip()) == (0, "digits 1.0: healthy, golden prediction right")


def test_a_halted_worker_is_named_within_the_time(run_on: RunHere, operated: Service) -> None:
    halted = psutil.Process(operated.worker_pids("digits")[0])
    halted.suspend()
    started = time.monotonic()
    try:
        probe = run_on("health_probe.py", "digits", "--timeout-s", "2")
    finally:
        halted.resume()
    assert time.monotonic() - started < 15
    assert probe.returncode == 1
    assert f"no answer from worker {halted.pid} in time" in probe.stderr


def test_after_a_killed_frontend_a_start_ends_the_workers_that_are_left(run_on: RunHere, operated: Service) -> None:
    """One worker is halted, so that it cannot end by itself."""
    frontend = operated.server.process()
    workers = find_workers(operated.server.config, operated.server.temporary)
    assert frontend is not None
    halted = psutil.Process(operated.worker_pids("digits")[0])
    assert halted in workers
    halted.suspend()
    frontend.kill()
    started = run_on("serve_models.py", "start")
    assert started.returncode == 1, started.stderr  # for the bad archives
    assert wait_until_ended(workers, 0) == []
    assert run_on("health_probe.py", "digits").returncode == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"config": name_an_unknown_backend}, "unknown backend 'openvimo'"),
        ({"golden": expect_another_class}, "digits 1.5: worker"),
    ],
    ids=["cannot load", "wrong golden prediction"],
)
def test_a_version_that_is_no_good_is_taken_out_again(
    run_on: RunHere, operated: Service, archives: Path, seven: bytes, change: dict[str, Change], reason: str
) -> None:
    derive(archives / "digits.mar", operated.model_store / "digits_bad.mar", "digits", "1.5", **change)
    with keep_asking(lambda: ask(operated, seven)) as traffic:
        finished = run_on("manage_models.py", "upgrade", "digits_bad.mar", "--watch-s", "1", "--write")
    assert finished.returncode == 1
    assert reason in finished.stderr
    assert "digits 1.0 serves as before" in finished.stderr
    assert traffic.failures() == []
    assert [entry["modelVersion"] for entry in operated.server.client.describe("digits")] == ["1.0"]
    assert "1.5" not in operated.server.config.read_text()


def test_an_upgrade_fails_no_request(run_on: RunHere, operated: Service, archives: Path, seven: bytes) -> None:
    store = operated.model_store
    derive(archives / "digits.mar", store / "digits_2.mar", "digits", "2.0", config=explain_at_any_time)
    with keep_asking(lambda: ask(operated, seven)) as traffic:
        finished = run_on("manage_models.py", "upgrade", "digits_2.mar", "--watch-s", "2", "--write")
        assert finished.returncode == 0, finished.stderr
        assert ask(operated, seven).headers["X-Model-Version"] == "2.0"
    assert traffic.failures() == []
    assert len(traffic.outcomes) > 20
    (entry,) = operated.server.client.describe("digits")
    assert (entry["modelVersion"], len(entry["workers"]), entry["batchSize"]) == ("2.0", 2, 4)
    written = read_model(operated.server.config.read_text(), "digits")
    assert {version: section["marName"] for version, section in written.items()} == {"2.0": "digits_2.mar"}
    assert "move digits.mar away" in finished.stderr


def test_an_upgrade_is_taken_back_without_a_failed_request(run_on: RunHere, operated: Service, seven: bytes) -> None:
    with keep_asking(lambda: ask(operated, seven)) as traffic:
        finished = run_on("manage_models.py", "rollback", "digits", "--watch-s", "1")
        assert finished.returncode == 0, finished.stderr
        assert ask(operated, seven).headers["X-Model-Version"] == "1.0"
    assert traffic.failures() == []
    assert [entry["modelVersion"] for entry in operated.server.client.describe("digits")] == ["1.0"]
    written = read_model(operated.server.config.read_text(), "digits")
    assert {version: section["marName"] for version, section in written.items()} == {"1.0": "digits.mar"}
    again = run_on("manage_models.py", "rollback", "digits", "--watch-s", "0")
    assert ask(operated, seven).headers["X-Model-Version"] == "2.0", again.stderr


def test_a_drained_stop_answers_what_was_asked_and_refuses_the_rest(
    run_on: RunHere, operated: Service, seven: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = graceful_stop.wait_until_quiet  # these clients never stop asking, and are not waited for until the deadline
    monkeypatch.setattr(graceful_stop, "wait_until_quiet", lambda server, timeout_s: quiet(server, min(timeout_s, 2)))
    taken: list[tuple[int | str, str]] = []
    slow = [
        threading.Thread(
            target=lambda: taken.append(try_once(lambda: ask(operated, seven, "/explanations/digits", **SLOW)))
        )
        for _ in range(6)
    ]
    frontend, temporary = operated.server.process(), operated.server.temporary
    assert frontend is not None
    family = [frontend, *frontend.children(recursive=True)]
    for thread in slow:
        thread.start()
    time.sleep(0.5)  # they have been sent
    with keep_asking(lambda: ask(operated, seven)) as traffic:
        stopped = run_on("serve_models.py", "stop", "--drain", "--drain-timeout-s", "60")
    for thread in slow:
        thread.join()
    assert (stopped.returncode, stopped.stdout.strip()) == (0, "stopped"), stopped.stderr
    assert [status for status, _ in taken] == [200] * 6
    refused = [outcome for outcome in traffic.failures() if outcome[0] == 503]
    assert refused
    assert {json.loads(body)["type"] for _, body in refused} == {"DrainingError"}
    others = {text for outcome, text in traffic.failures() if outcome != 503}
    assert all("Connection refused" in text for text in others), others
    assert wait_until_ended(family, 0) == []
    assert listening(list(operated.server.ports().values())) == []
    assert not temporary.exists()
