"""A server that asks for signatures: TorchServe takes the configuration, and sees nothing that is not signed."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import RunHere

from mar_tools.serving.server import Server

from ..canaries import build_canaries
from ..conftest import write_configuration


@pytest.fixture
def signed_service(run_here: RunHere, archives: Path, tmp_path: Path) -> Iterator[Server]:
    """Not started; its archive is signed by the key that it trusts."""
    config = write_configuration(tmp_path, vision_trusted_keys="keys/*.pub", vision_archives="ours")
    store = tmp_path / "model_store"
    store.mkdir(mode=0o755)
    os.chmod(shutil.copy(archives / "digits.mar", store), 0o644)
    assert run_here("sign_archive.py", "keygen", tmp_path / "keys" / "release.key").returncode == 0
    signed = run_here("sign_archive.py", "sign", store / "digits.mar", "--key", tmp_path / "keys" / "release.key")
    assert signed.returncode == 0, signed.stderr
    server = Server(config)
    yield server
    server.stop()


def test_what_is_signed_is_served_and_nothing_else(run_here: RunHere, signed_service: Server) -> None:
    config, store = signed_service.config, signed_service.folder / "model_store"
    other = Path(shutil.copy(store / "digits.mar", store / "other.mar"))
    for command in (
        ("serve_models.py", "start", "--config", config),
        ("manage_models.py", "--config", config, "register", other.name),
    ):
        refused = run_here(*command)
        assert (refused.returncode, "other.mar: not signed" in refused.stderr) == (1, True)
        assert signed_service.client.list_models() == ["digits"]

    other.unlink()
    signed_service.stop()
    with (store / "digits.mar").open("ab") as file:
        file.write(b"more")
    refused = run_here("serve_models.py", "start", "--config", config)
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
