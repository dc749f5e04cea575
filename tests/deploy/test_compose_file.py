"""The compose file names what is there, keeps TorchServe from others, and a compose reads it."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "container"
FILE = FOLDER / "compose.yaml"
OURS = ("server", "front")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))["services"]
    return found


def test_what_it_mounts_is_in_the_checkout(services: dict[str, Any]) -> None:
    places = [volume.partition(":")[0] for service in services.values() for volume in service["volumes"]]
    assert [place for place in places if place.startswith(".") and not (FOLDER / place).exists()] == []


def test_what_it_builds_are_stages_of_the_containerfile(services: dict[str, Any]) -> None:
    stages = re.findall(r"(?m)^FROM \S+ AS (\w+)$", (FOLDER / "Containerfile").read_text(encoding="utf-8"))
    assert {services[name]["build"]["target"] for name in OURS} <= set(stages)
    assert stages[-1] == "server", "which a build without --target makes"


def test_only_the_front_is_published_for_other_machines(services: dict[str, Any]) -> None:
    published = [port for service in services.values() for port in service.get("ports", ())]
    assert [port for port in published if not port.startswith("127.0.0.1:")] == ["8443:8443"]
    assert all(services[name]["network_mode"] == "service:server" for name in services if name != "server")


@pytest.mark.parametrize("name", OURS)
def test_our_containers_have_no_right_that_they_do_not_need(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="needs docker-compose: apt install docker-compose")
def test_docker_compose_reads_it() -> None:
    command = ["docker-compose", "--file", str(FILE), "config", "--quiet"]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert (finished.returncode, finished.stderr) == (0, "")
