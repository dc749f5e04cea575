"""What a machine lacks is named in one line, before TorchServe starts."""

import os
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from shutil import disk_usage
from zipfile import ZipFile

import pytest
from conftest import RunHere
from other_users import OPERATOR, as_user, needs_root, open_folder

from mar_tools.command_line import ROOT
from mar_tools.serving import start_checks
from mar_tools.serving.address import read_address
from mar_tools.serving.config_file import with_values
from mar_tools.serving.ports import free_addresses
from mar_tools.serving.server import Server
from mar_tools.serving.start_checks import check_limits, choose_temporary_place, prepare_logs
from mar_tools.serving.start_record import StartRecord, mark_stopped, read_start_record, stop_mark
from mar_tools.serving.torchserve_api import ServerError
from vision_serving.errors import ConfigError


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.properties"
    path.write_text(with_values("", {**free_addresses(), "disable_token_authorization": "true"}))
    (tmp_path / "model_store").mkdir()
    return path


@pytest.fixture
def small_disk() -> Iterator[Path]:
    disk = Path(tempfile.mkdtemp(prefix="disk-"))  # sockets need a short path
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True).returncode:
        disk.rmdir()
        pytest.skip("a disk can be mounted by root alone, and not in every container")
    yield disk
    subprocess.run(["umount", disk], check=True)
    disk.rmdir()


def start(config: Path) -> None:
    Server(config).start(5, lambda step: None)


@pytest.mark.parametrize("name", ["LOG_LOCATION", "METRICS_LOCATION", "TS_CONFIG_FILE"])
def test_a_variable_that_torchserve_alone_would_follow_is_refused(
    config: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "/var/log")
    with pytest.raises(ServerError, match=f"{name} is set to '/var/log', which is not followed; unset it"):
        start(config)
    assert not (config.parent / "logs" / "console.log").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("inference_address=http://[::1]:8080", r"inference_address: expected http://HOST:PORT \(.* no IPv6"),
        ("management_address=http://[2001:db8::2]:81", r"management_address: .*no IPv6.*got 'http://\[2001:db8::2\]:81'"),
        ("metrics_address=http://127.0.0.1:70000", "metrics_address: expected http://HOST:PORT, got"),
        ("inference_address=http://127.0.0.1", "inference_address: expected http://HOST:PORT, got"),
        ("inference_address=http://::1:8080", "inference_address: expected"),
        ("inference_address=127.0.0.1:8080", "inference_address: expected"),
        ("enable_envvars_config=true", "enable_envvars_config: remove it, and write here what TS_JOB_QUEUE_SIZE"),
        ("inference_address=http://127.0.0.1:$$PORT$$", "inference_address: expected a value, got a variable"),
    ],
)  # fmt: skip
def test_settings_that_no_command_could_follow_are_refused_by_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, message: str
) -> None:
    monkeypatch.setenv("TS_JOB_QUEUE_SIZE", "5")
    config = tmp_path / "config.properties"
    config.write_text(line + "\n")
    for command in (read_address, Server):
        with pytest.raises(ConfigError, match=message):
            command(config)


def test_a_name_and_a_slash_are_an_address(tmp_path: Path) -> None:
    (tmp_path / "config.properties").write_text("inference_address=https://my-host.local:65535/\n")
    assert read_address(tmp_path / "config.properties").inference == "https://my-host.local:65535/"


def test_a_path_that_is_too_long_for_sockets_is_named(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 80)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    with pytest.raises(
        ServerError, match=f"{deep}: expected at most 68 bytes of path.*give a shorter one by TMPDIR, by --state"
    ):
        choose_temporary_place(config, [])
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert choose_temporary_place(config, []) == Path("/tmp")


def test_a_full_disk_is_named_where_the_logs_are(config: Path, small_disk: Path) -> None:
    config.write_text(config.read_text() + f"vision_state={small_disk}\n")
    with pytest.raises(ServerError, match=f"the disk of {small_disk}/logs has 0 MiB left, and a start needs 16; free"):
        start(config)
    fill(small_disk)
    with pytest.raises(ServerError, match=f"cannot write in {small_disk}/logs: No space left on device; free some"):
        start(config)


def test_a_full_temporary_folder_is_named(config: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python would take another one in silence, which later commands would not look at."""
    fill(small_disk)
    monkeypatch.setenv("TMPDIR", str(small_disk))
    with pytest.raises(ServerError, match=f"cannot write in {small_disk}: No space left on device"):
        choose_temporary_place(config, [])


def test_a_restart_may_count_on_what_the_running_server_holds(
    config: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_logs(config)
    held = small_disk / "vision-serving-now"
    held.mkdir()
    (held / "filler").write_bytes(bytes(128 << 10))
    monkeypatch.setenv("TMPDIR", str(small_disk))
    monkeypatch.setattr(start_checks, "SPARE_BYTES", 200 << 10)
    with pytest.raises(ServerError, match="the disk of"):
        choose_temporary_place(config, [])
    StartRecord(temporary=str(held)).write(config)
    assert choose_temporary_place(config, []) == small_disk


@pytest.mark.parametrize("names", [("config.properties", "config.properties"), ("one.properties", "two.properties")])
def test_a_state_folder_belongs_to_one_server(tmp_path: Path, names: tuple[str, str]) -> None:
    state = tmp_path / "state"
    first, second = tmp_path / "a" / names[0], tmp_path / "b" / names[1]
    for config in (first, second):
        config.parent.mkdir()
        config.write_text(with_values(f"vision_state={state}\n", free_addresses()))
    prepare_logs(first)
    StartRecord(temporary="/tmp/first").write(first)
    with pytest.raises(ServerError, match=f"{state} belongs to the server of {first}; stop that one, or name another"):
        start(second)
    mark_stopped(second)
    assert not Server(second).stop()
    assert not stop_mark(first).exists()
    assert read_start_record(first).temporary == "/tmp/first"
    assert prepare_logs(first) == state / "logs"
    Server(first).stop()
    assert prepare_logs(second) == state / "logs"


def test_a_copied_folder_has_no_server_of_the_first(config: Path, tmp_path: Path) -> None:
    prepare_logs(config)
    StartRecord(temporary="/tmp/first").write(config)
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(config, copy)
    shutil.copytree(config.parent / "logs", copy / "logs")
    assert prepare_logs(copy / config.name) == copy / "logs"
    assert read_start_record(copy / config.name) == StartRecord()


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))
    assert disk_usage(disk).free == 0


def test_archives_have_to_fit_unpacked(config: Path, tmp_path: Path) -> None:
    archive = tmp_path / "large.mar"
    with ZipFile(archive, "w") as content:
        content.writestr("model.bin", b"")
        content.getinfo("model.bin").file_size = 1 << 43
    with pytest.raises(ServerError, match=r"MiB left, and a start needs 8388624; free"):
        choose_temporary_place(config, [archive])


@needs_root
def test_a_checkout_that_cannot_be_written_to_is_named_and_a_setting_moves_what_is_written() -> None:
    with open_folder(0) as checkout, open_folder(OPERATOR) as state:
        config = checkout / "config.properties"
        config.touch()
        error = as_user(OPERATOR, lambda: prepare_logs(config))
        assert str(error).startswith(
            f"cannot write in {checkout}/logs: Permission denied; let this user write there, or name"
        )
        (checkout / "logs").mkdir()
        os.chown(checkout / "logs", OPERATOR, OPERATOR)
        error = as_user(OPERATOR, lambda: prepare_logs(config))
        assert str(error).startswith(f"cannot write in {checkout}: Permission denied"), "tokens go there"
        config.write_text(f"vision_state={state}\n")
        assert as_user(OPERATOR, lambda: prepare_logs(config)) == state / "logs"
        assert as_user(OPERATOR, lambda: choose_temporary_place(config, [])) == state
        assert read_address(config).key_file == state / "key_file.json"


def test_logs_are_their_owners_alone_those_of_earlier_starts_too(config: Path) -> None:
    logs = config.parent / "logs"
    (logs / "config").mkdir(parents=True, mode=0o755)
    (logs / "model_log.log").touch(mode=0o644)
    (logs / "link").symlink_to(config)
    config.chmod(0o644)
    prepare_logs(config)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (logs, logs / "config")} == {0o700}
    assert stat.S_IMODE((logs / "model_log.log").stat().st_mode) == 0o600
    assert stat.S_IMODE(config.stat().st_mode) == 0o644, "a link leads elsewhere"


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 1024, reason="this shell allows fewer itself")
def test_too_few_open_files_are_named(config: Path) -> None:
    check_limits(os.environ)
    command = f"ulimit -n 256; exec {sys.executable} {ROOT}/scripts/serve_models.py start --config {config}"
    finished = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True)
    assert finished.returncode == 1
    assert finished.stderr == "error: this shell allows 256 open files, and a server needs 1024; raise ulimit -Hn\n"


def test_a_state_folder_without_a_name_is_refused(run_here: RunHere) -> None:
    """`--state "$STATE"` of a variable that is not set would write into the folder where one stands."""
    done = run_here("serve_models.py", "status", "--state", "")
    assert done.returncode == 2
    assert "argument --state: expected a folder, got ''" in done.stderr
