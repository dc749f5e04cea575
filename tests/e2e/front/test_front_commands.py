"""The log of the front, its command and its settings."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.conftest import ROOT
from mar_tools.front import nginx as nginx_module
from mar_tools.front.certificates import make_certificate
from mar_tools.front.front import SETTINGS, Front
from mar_tools.front.nginx import NginxError, find_nginx
from mar_tools.waiting import wait_until
from vision_serving.errors import ConfigError

from .conftest import TIMEOUT_S, Running, configure_upstream, nginx_processes, write_settings
from .faults import Upstream


def test_the_log_has_who_and_what_but_no_secrets(running: Running, seven: bytes) -> None:
    running.predict(seven, "?top_k=1&note=secret")
    line = running.line_of(running.predict(seven))
    assert {name: line[name] for name in ("client", "method", "path", "status", "tries", "tls", "model_version")} == {
        "client": "first", "method": "POST", "path": "/predictions/digits", "status": 200, "tries": "200",
        "tls": "TLSv1.3", "model_version": "1.0",
    }  # fmt: skip
    assert 0 < float(line["tries_seconds"]) <= line["seconds"] + 0.01
    assert "secret" not in (running.front.logs / "access.log").read_text()


def test_status_and_a_second_start(running: Running) -> None:
    status = json.loads(running.command("status", "--json").stdout)
    assert (status["pid"], status["url"]) == (nginx_processes(running)[0].pid, running.front.url)
    assert "first" in status["clients"]
    again = running.command("start")
    assert (again.returncode, "already running" in again.stderr) == (1, True)


def test_a_broken_change_is_refused_and_the_front_goes_on(running: Running, seven: bytes) -> None:
    local = running.front.folder / "local" / "broken.conf"
    local.write_text("no_such_directive on;\n")
    try:
        with pytest.raises(NginxError, match="unknown directive"):
            running.front.reload()
    finally:
        local.unlink()
    assert running.predict(seven).status_code == 200


def test_a_key_that_comes_while_nginx_begins_is_valid(nginx: None, told: Upstream, tmp_path: Path) -> None:
    """nginx has read the keys, and waits for a certificate before it writes its number."""
    front = Front(tmp_path / "front", write_settings(tmp_path), configure_upstream(tmp_path, told))
    pipe = front.folder / "local" / "pipe.pem"
    pipe.parent.mkdir(parents=True)
    os.mkfifo(pipe)
    (pipe.parent / "waits.conf").write_text(f'ssl_trusted_certificate "{pipe}";\n')
    make_certificate(tmp_path / "other.pem", tmp_path / "other.key", ("localhost",))
    config, settings = tmp_path / "config.properties", tmp_path / "front.yaml"
    options = ["--folder", str(front.folder), "--settings", str(settings), "--config", str(config)]
    command = [sys.executable, str(ROOT / "scripts" / "serve_front.py")]
    with subprocess.Popen([*command, "run", *options]) as begins:
        try:
            pipe.write_bytes((tmp_path / "other.pem").read_bytes())  # which the check of the configuration reads
            assert wait_until((front.folder / "nginx.conf").is_file, TIMEOUT_S)
            with pipe.open("wb") as waiting:
                adding = subprocess.Popen(
                    [*command, "add-client", "early", *options], stdout=subprocess.PIPE, text=True
                )
                assert wait_until(lambda: front.clients.names() == ["early"], TIMEOUT_S)
                os.replace(shutil.copy(tmp_path / "other.pem", tmp_path / "copied.pem"), pipe)
                waiting.write(pipe.read_bytes())
            key = adding.communicate()[0].strip()
            assert adding.returncode == 0
            running = Running(front, key, settings, config)
            assert running.predict(b"a picture").status_code == 200
        finally:
            begins.terminate()


def test_a_start_that_fails_makes_no_key_that_nobody_saw(before_upstream: Running, tmp_path: Path) -> None:
    front = Front(tmp_path, before_upstream.settings, before_upstream.config)  # its port is taken
    with pytest.raises(NginxError, match=r"port \d+ \(listen in .*front.yaml\) is taken by process \d+ \(nginx\)"):
        front.start()
    assert front.clients.names() == []


@pytest.mark.parametrize("listen", ["0.0.0.0:8443; autoindex on", "8443", 8443, "127.0.0.1", "[::1]", "0.0.0.0:65536"])
def test_where_it_listens_is_an_address_with_a_port(tmp_path: Path, listen: str | int) -> None:
    settings = tmp_path / "front.yaml"
    settings.write_text(yaml.safe_dump({**yaml.safe_load(SETTINGS.read_text()), "listen": listen}))
    with pytest.raises(ConfigError, match="'listen': expected HOST:PORT, as"):
        Front(tmp_path, settings, tmp_path / "config.properties")


def test_a_folder_whose_socket_would_have_too_long_a_path_is_refused(tmp_path: Path) -> None:
    deep = Path("/" + "d" * 96)
    with pytest.raises(ConfigError, match=f"{deep}: expected at most 96 bytes of path, got 97; give a shorter"):
        Front(deep, SETTINGS, tmp_path / "config.properties").start()
    assert not deep.exists()


def test_settings_are_strict(tmp_path: Path) -> None:
    settings = tmp_path / "front.yaml"
    settings.write_text(SETTINGS.read_text() + "burts: 3\n")
    with pytest.raises(ConfigError, match="unknown key 'burts'"):
        Front(tmp_path, settings, tmp_path / "config.properties")


MACHINES = {"addresses": ["[::1]:8443", "[::1]:8444"], "certificate": "full.pem", "name": "localhost"}


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"certificate": "full.pem", "certificate_key": "full.key"}, "certificate"),
        ({"machines": MACHINES}, "machines.certificate"),
    ],
)
def test_a_missing_certificate_is_named(tmp_path: Path, given: dict[str, Any], key: str) -> None:
    settings = tmp_path / "front.yaml"
    settings.write_text(yaml.safe_dump({**yaml.safe_load(SETTINGS.read_text()), **given}))
    with pytest.raises(ConfigError, match=f"{settings}: {key}: no file {tmp_path / 'full.pem'}; expected one in PEM"):
        Front(tmp_path, settings, tmp_path / "config.properties").start()


def test_missing_settings_say_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file; give --settings"):
        Front(tmp_path, tmp_path / "none.yaml", tmp_path / "config.properties")


def test_a_missing_nginx_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(nginx_module, "SYSTEM_PATHS", ())
    monkeypatch.setattr(nginx_module, "FETCHED", tmp_path)
    with pytest.raises(NginxError, match="apt install nginx libnginx-mod-http-js"):
        find_nginx()
