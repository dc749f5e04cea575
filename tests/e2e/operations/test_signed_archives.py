"""A server that asks for signatures: TorchServe takes the configuration, and sees nothing that is not signed."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mar_tools.serving.server import Server

from ..canaries import build_canaries
from ..conftest import run_script, write_configuration


@pytest.fixture
def signed_service(archives: Path, tmp_path: Path) -> Iterator[Server]:
    """Not started; its archive is signed by the key that it trusts."""
    config = write_configuration(tmp_path, vision_trusted_keys="keys/*.pub", vision_archives="ours")
    store = tmp_path / "model_store"
    store.mkdir(mode=0o755)
    os.chmod(shutil.copy(archives / "digits.mar", store), 0o644)
    assert run_script("sign_archive.py", "keygen", tmp_path / "keys" / "release.key").returncode == 0
    signed = run_script("sign_archive.py", "sign", store / "digits.mar", "--key", tmp_path / "keys" / "release.key")
    assert signed.returncode == 0, signed.stderr
    server = Server(config)
    yield server
    server.stop()


def test_what_is_signed_is_served_and_nothing_else(signed_service: Server) -> None:
    config, store = signed_service.config, signed_service.folder / "model_store"
    started = run_script("serve_models.py", "start", "--config", config)
    assert started.returncode == 0, started.stderr

    other = Path(shutil.copy(store / "digits.mar", store / "other.mar"))
    refused = run_script("manage_models.py", "--config", config, "register", other.name)
    assert (refused.returncode, "other.mar: not signed" in refused.stderr) == (1, True)
    assert signed_service.client.list_models() == ["digits"]

    signed_service.stop()
    refused = run_script("serve_models.py", "start", "--config", config)
    assert (refused.returncode, "other.mar: not signed" in refused.stderr) == (1, True)
    assert signed_service.client.list_models() == ["digits"]  # what is signed is served
    signed_service.stop()
    other.unlink()
    with (store / "digits.mar").open("ab") as file:
        file.write(b"more")
    refused = run_script("serve_models.py", "start", "--config", config)
    assert refused.returncode == 1
    assert "something follows its end" in refused.stderr
    assert signed_service.process() is None


def test_a_store_without_an_archive_serves_nothing_that_was_not_checked(tmp_path: Path) -> None:
    """TorchServe's own `load_models=all` would take the folder."""
    canaries = build_canaries(tmp_path / "canaries")
    server = Server(write_configuration(tmp_path))
    shutil.copytree(canaries.unpacked, tmp_path / "model_store" / "canary")
    try:
        assert server.start(timeout_s=120, announce=lambda step: None) == []
        assert server.client.list_models() == []
    finally:
        server.stop()
    assert not canaries.witness.exists()
