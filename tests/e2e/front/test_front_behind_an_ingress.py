"""A front behind what has HTTPS and knows who asks: plain HTTP, one client, and keys that are made elsewhere."""

from pathlib import Path

import pytest
import requests
import yaml

from e2e.test_requests import OCTETS
from mar_tools.front.client_keys import ClientKeys
from mar_tools.front.front import SETTINGS, Front
from mar_tools.front.front_record import read_front_record
from mar_tools.serving.ports import find_free_ports
from mar_tools.waiting import wait_until
from vision_serving.errors import ConfigError

from .conftest import TIMEOUT_S, Running
from .faults import Upstream


def make_front(folder: Path, config: Path, **changes: object) -> Front:
    [port] = find_free_ports(1)
    settings = folder / "front.yaml"
    shipped = yaml.safe_load(SETTINGS.read_text())
    settings.write_text(yaml.safe_dump({**shipped, "listen": f"127.0.0.1:{port}", **changes}))
    return Front(folder / "front", settings, config)


@pytest.mark.parametrize("key", [None, "of-another-place"])
def test_all_requests_are_of_one_client_by_plain_http(
    before_upstream: Running, told: Upstream, tmp_path: Path, key: str | None
) -> None:
    front = make_front(tmp_path, before_upstream.config, tls=False, only_client="ingress")
    try:
        assert front.start() is None, "nobody needs a key"
        assert front.url.startswith("http://")
        headers = OCTETS if key is None else {**OCTETS, "Authorization": f"Bearer {key}"}
        answer = requests.post(f"{front.url}/v1/models/digits:predict", data=b"x", headers=headers, timeout=TIMEOUT_S)
        assert answer.status_code == told.status
        log = front.logs / "access.log"
        assert wait_until(lambda: '"client":"ingress"' in log.read_text(), TIMEOUT_S)
        assert not front.certificate.exists()
    finally:
        front.stop()


def test_keys_that_are_made_elsewhere_are_read_there(before_upstream: Running, told: Upstream, tmp_path: Path) -> None:
    mounted = tmp_path / "keys" / "clients.map"
    mounted.parent.mkdir()
    key = ClientKeys(mounted).add("camera-7")
    front = make_front(tmp_path, before_upstream.config, clients="keys/clients.map")
    try:
        assert front.start() is None, "whoever made the file gives the keys"
        answer = requests.post(
            f"{front.url}/predictions/digits",
            data=b"x",
            headers={**OCTETS, "X-Api-Key": key},
            verify=str(front.certificate),
            timeout=TIMEOUT_S,
        )
        assert answer.status_code == told.status
        assert list(front.folder.glob("clients.map")) == []
        record = read_front_record(before_upstream.config)
        assert record is not None
        assert (record.clients, record.is_running()) == (str(mounted), True)
    finally:
        front.stop()
    assert not record.is_running()


def test_keys_that_are_not_there_are_named(before_upstream: Running, tmp_path: Path) -> None:
    front = make_front(tmp_path, before_upstream.config, clients="keys/clients.map")
    with pytest.raises(ConfigError, match=r"clients: no file .*keys/clients.map; add-client writes such a file"):
        front.start()
