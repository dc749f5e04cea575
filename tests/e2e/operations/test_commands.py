"""What a user types: predictions over HTTP and in process, start, stop, restart, and the plain torchserve command."""

import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import RunHere

from mar_tools.archives.archive import DIGESTS
from mar_tools.serving.config_file import with_values
from mar_tools.serving.java import find_java_home
from mar_tools.serving.server import Server
from mar_tools.serving.torchserve_api import ServerError
from mar_tools.waiting import wait_until

from ..conftest import EXAMPLES, Service, run_script, scene_path, write_configuration

SAMPLES = EXAMPLES / "digits_classification" / "samples"


def test_http_and_in_process_predictions_are_the_same(run_here: RunHere, service: Service) -> None:
    served = run_here("predict_images.py", "digits", SAMPLES, "--json", "--config", service.server.config)
    archive = service.model_store / "digits.mar"
    local = run_here("predict_images.py", "--archive", archive, SAMPLES, "--json")
    assert served.returncode == local.returncode == 0, served.stderr + local.stderr
    for over_http, in_process in zip(served.stdout.splitlines(), local.stdout.splitlines(), strict=True):
        expected, found = json.loads(in_process), json.loads(over_http)
        assert found["file"] == expected["file"]
        assert [c["label"] for c in found["classes"]][:1] == [c["label"] for c in expected["classes"]][:1]
        assert found["classes"][0]["score"] == pytest.approx(expected["classes"][0]["score"], abs=1e-4)


def test_annotated_pictures_are_saved(run_here: RunHere, service: Service, tmp_path: Path) -> None:
    archive = service.model_store / "digits_detection.mar"
    finished = run_here("predict_images.py", "--archive", archive, scene_path(), "--save-annotated", tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["scene_4.jpg.annotated.png"]


def test_an_unknown_model_is_answered_with_the_known_ones(run_here: RunHere, service: Service) -> None:
    finished = run_here("predict_images.py", "digit", SAMPLES, "--config", service.server.config)
    assert finished.returncode == 1
    assert "Model not found: digit; the server has ['digits', 'digits_detection']" in finished.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("set-default", "digits", "9.9"),
        ("describe", "digits", "--version", "9.9"),
        ("scale", "digits", "--version", "9.9", "--workers", "1"),
        ("unregister", "digits", "--version", "9.9"),
    ],
    ids=lambda command: command[0],
)
def test_an_unknown_version_is_answered_with_the_known_ones(
    run_here: RunHere, service: Service, command: tuple[str, ...]
) -> None:
    finished = run_here("manage_models.py", *command, "--config", service.server.config)
    assert finished.returncode == 1
    assert "9.9" in finished.stderr
    assert "; the server has the versions ['1.0']" in finished.stderr


@pytest.fixture
def small_service(archives: Path, tmp_path: Path) -> Iterator[Server]:
    """A configuration of its own with the classifier alone, not started."""
    config = write_configuration(tmp_path)
    (tmp_path / "model_store").mkdir()
    shutil.copy(archives / "digits.mar", tmp_path / "model_store")
    server = Server(config)
    yield server
    server.stop()


def listening(ports: list[int]) -> list[int]:
    connections = psutil.net_connections("tcp")
    return [c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN and c.laddr.port in ports]


def test_start_restart_status_stop_leave_nothing_behind(
    run_here: RunHere, small_service: Server, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command has another TMPDIR than the start, and a restart moves what the server writes."""
    config = small_service.config
    started = run_script("serve_models.py", "start", "--json", "--config", config)
    assert started.returncode == 0, started.stderr
    assert [(m["model"], m["ready"]) for m in json.loads(started.stdout)] == [("digits", True)]
    process = small_service.process()
    assert process is not None
    addresses = {
        c.laddr.ip for p in [process, *process.children()] for c in p.net_connections("tcp") if c.status == "LISTEN"
    }
    assert {address.removeprefix("::ffff:") for address in addresses} == {"127.0.0.1"}

    temporary = small_service.temporary
    assert {stat.S_IMODE(path.stat().st_mode) for path in (config.parent / "logs", temporary)} == {0o700}
    logs = [path for path in (config.parent / "logs").iterdir() if path.suffix == ".log"]
    assert {stat.S_IMODE(log.stat().st_mode) for log in logs} == {0o600}
    monkeypatch.setenv("TMPDIR", "/proc")  # where nobody can write
    again = run_here("serve_models.py", "start", "--config", config)
    assert (again.returncode, "already running" in again.stderr) == (1, True)
    settings = config.read_text()
    config.write_text(with_values(settings, {"models": '{"digits": {"1.0": {"batchSize": "x"}}}'}))
    refused = run_here("serve_models.py", "restart", "--config", config)
    assert (refused.returncode, "digits 1.0: batchSize: expected a whole number" in refused.stderr) == (1, True)
    assert process.is_running(), "what cannot be started again is not stopped"
    config.write_text(settings)
    nowhere = run_here("serve_models.py", "restart", "--config", config)
    assert (nowhere.returncode, "cannot write in /proc: " in nowhere.stderr) == (1, True)
    assert process.is_running()
    written = sorted(config.parent.rglob("*"))
    state = tmp_path_factory.mktemp("s")  # short enough for sockets
    config.write_text(with_values(settings, {"vision_state": str(state)}))
    restarted = run_here("serve_models.py", "restart", "--config", config)
    assert restarted.returncode == 0, restarted.stderr
    assert sorted(path.name for path in state.iterdir()) == ["key_file.json", "logs", small_service.temporary.name]
    assert {path.name for path in (state / "logs").iterdir()} >= {"console.log", "model_log.log", "ts_log.log"}
    assert set(written) - set(config.parent.rglob("*")) == {config.parent / "key_file.json"}
    assert set(config.parent.rglob("*")) <= set(written)
    assert json.loads(run_here("serve_models.py", "status", "--json", "--config", config).stdout)[0]["ready"]

    running = small_service.process()
    assert running is not None
    assert running.pid != process.pid
    family = [running, *running.children(recursive=True)]
    assert run_here("serve_models.py", "stop", "--config", config).stdout.strip() == "stopped"
    assert not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert listening(list(small_service.ports().values())) == []
    assert [path.name for path in state.iterdir()] == ["logs"]
    assert not temporary.exists()
    assert run_here("serve_models.py", "stop", "--config", config).stdout.strip() == "nothing was running"
    down = run_here("serve_models.py", "status", "--config", config)
    assert (down.returncode, "serve_models.py start" in down.stderr) == (1, True)


def test_a_model_that_cannot_load_fails_the_start_with_its_reason(
    run_here: RunHere, small_service: Server, archives: Path
) -> None:
    with (
        zipfile.ZipFile(archives / "digits.mar") as packed,
        zipfile.ZipFile(small_service.folder / "model_store" / "digits.mar", "w") as broken,
    ):
        for entry in packed.infolist():
            if entry.filename == DIGESTS:
                continue  # what is changed is no longer ours, and is served as another's archive is
            broken.writestr(entry, packed.read(entry).replace(b"backend: openvino", b"backend: openvimo"))
    finished = run_here("serve_models.py", "start", "--config", small_service.config)
    assert finished.returncode == 1
    assert "model digits cannot load: unknown backend 'openvimo'" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1
    assert small_service.process() is None


def test_the_plain_torchserve_command_serves_too(small_service: Server, tmp_path: Path, seven: bytes) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (tmp_path / "workflow_store").mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"JAVA_HOME": str(find_java_home()), "TMPDIR": str(scratch), "TEMP": str(scratch)}
    torchserve = str(Path(sys.executable).parent / "torchserve")
    command = [torchserve, "--start", "--ncs", "--ts-config", "config.properties"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, stdout=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: can_predict(small_service, seven), timeout_s=60, poll_s=0.5)
    finally:
        frontend = psutil.Process(int((scratch / ".model_server.pid").read_text()))
        family = [frontend, *frontend.children(recursive=True)]
        subprocess.run([torchserve, "--stop"], cwd=tmp_path, env=environment, check=True, stdout=subprocess.DEVNULL)
        _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []


def can_predict(server: Server, image: bytes) -> bool:
    try:
        return server.client.predict("digits", image).status_code == 200
    except ServerError:
        return False
