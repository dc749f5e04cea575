"""A front before three machines: which of them it asks, and which requests it asks twice."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.test_requests import OCTETS
from e2e.traffic import keep_comparing
from mar_tools.front.front import SETTINGS, Front
from mar_tools.waiting import wait_until
from vision_serving.errors import ConfigError

from .conftest import PREDICT, TIMEOUT_S, nginx_processes, run_front
from .fleets import OF_THE_SERVER, ORIGIN, Fleet, run_fleet

REQUESTS = 12  # four for each machine
LARGE = b"x" * 600_000  # it waits in a file, and is sent from there twice


@pytest.fixture(scope="module")
def made(nginx: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with run_fleet(tmp_path_factory.mktemp("fleet"), 3) as made:
        yield made


@pytest.fixture
def fleet(made: Fleet) -> Fleet:
    """All of its machines are well."""
    for machine in made.machines:
        machine.told.status, machine.told.ready = 200, True
    assert wait_until(lambda: all(asked_of(made)), TIMEOUT_S)
    return made


def ask(fleet: Fleet, method: str = "POST") -> tuple[int, list[str]]:
    """The status, and the addresses that were asked, in order."""
    response = fleet.front.request(method, PREDICT, OCTETS, data=LARGE)
    asked = fleet.front.line_of(response)["machines"].replace(" : ", ", ").split(", ")
    return response.status_code, asked


def asked_of(fleet: Fleet) -> list[int]:
    """How many of some requests came to each machine's server. All have to succeed."""
    before = [machine.told.asked for machine in fleet.machines]
    assert [fleet.front.predict(b"x").content for _ in range(REQUESTS)] == [OF_THE_SERVER] * REQUESTS
    return [machine.told.asked - earlier for machine, earlier in zip(fleet.machines, before, strict=True)]


def test_the_machines_share_the_requests(fleet: Fleet) -> None:
    assert wait_until(lambda: all(asked_of(fleet)), TIMEOUT_S)


@pytest.mark.parametrize("status", [503, 502, 0], ids=["draining", "a server that is gone", "lost connection"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_what_one_machine_did_not_answer_one_other_does(fleet: Fleet, method: str, status: int) -> None:
    first = fleet.machines[0]
    first.told.status = status
    answered, asked = ask(fleet, method)
    while asked[0] != first.address:  # the others have their turns
        assert (answered, len(asked)) == (200, 1)
        answered, asked = ask(fleet, method)
    assert (answered, len(asked), len(set(asked))) == (200, 2, 2)
    assert [machine.told.bytes_got for machine in fleet.machines if machine.address in asked] == [len(LARGE)] * 2


def test_there_is_no_third_machine(fleet: Fleet) -> None:
    for machine in fleet.machines:
        machine.told.status = 503
    status, asked = ask(fleet)
    assert (status, len(asked), len(set(asked))) == (503, 2, 2)


def test_where_the_others_are_gone_the_first_machines_503_stays(fleet: Fleet) -> None:
    """Its client waits as long as Retry-After says."""
    first, *others = fleet.machines
    first.told.status = 503
    try:
        for machine in others:
            machine.front.front.stop()
        response = fleet.front.predict(b"x")
        assert (response.status_code, response.json()["type"]) == (503, "UnavailableError")
        assert response.headers["Retry-After"] == "1"
    finally:
        for machine in others:
            machine.front.front.start()


@pytest.mark.parametrize("status", [500, 507, 400, 404, 413, 429])
def test_what_a_machine_answered_goes_to_no_other(fleet: Fleet, status: int) -> None:
    for machine in fleet.machines:
        machine.told.status = status
    answered, asked = ask(fleet)
    assert (answered, len(asked)) == (status, 1)


def test_a_machine_that_is_not_ready_is_asked_nothing(fleet: Fleet) -> None:
    first, second, third = fleet.machines
    first.told.ready = False
    assert wait_until(lambda: asked_of(fleet)[0] == 0, TIMEOUT_S)
    assert wait_until(lambda: all(asked_of(fleet)[1:]), TIMEOUT_S)
    assert asked_of(fleet)[0] == 0
    second.told.ready = False
    assert wait_until(lambda: asked_of(fleet) == [0, 0, REQUESTS], TIMEOUT_S)
    assert fleet.front.request("GET", "/v2/health/ready").json() == {"ready": True}
    assert list(fleet.front.front.status().machines.values()) == ["not ready", "not ready", "ready"]
    third.told.ready = False
    assert wait_until(lambda: fleet.front.request("GET", "/v2/health/ready").status_code == 503, TIMEOUT_S)
    assert all(asked_of(fleet)), "where none is ready, each may be all the same"
    assert fleet.front.request("GET", "/ping").json() == {"status": "Healthy"}


def test_a_machines_front_that_stops_loses_no_request_and_takes_part_again(fleet: Fleet) -> None:
    first = fleet.machines[0]
    with keep_comparing(lambda: fleet.front.predict(b"x").content, OF_THE_SERVER) as traffic:
        first.front.front.stop()
        assert asked_of(fleet)[0] == 0
        assert first.front.front.start() is None
        assert wait_until(lambda: asked_of(fleet)[0], TIMEOUT_S)
    assert traffic.wrong == []
    assert traffic.right > 20


def test_a_machines_front_that_is_killed_loses_no_request(fleet: Fleet) -> None:
    first = fleet.machines[0]
    with keep_comparing(lambda: fleet.front.predict(b"x").content, OF_THE_SERVER) as traffic:
        for process in nginx_processes(first.front):
            process.kill()
        assert asked_of(fleet)[0] == 0
        assert wait_until(lambda: first.front.front.process() is None, TIMEOUT_S)
        first.front.front.start()
        assert wait_until(lambda: asked_of(fleet)[0], TIMEOUT_S)
    assert traffic.wrong == []


def test_who_has_no_key_reaches_no_machine(fleet: Fleet) -> None:
    before = [len(machine.front.log()) for machine in fleet.machines]
    for path in (PREDICT, "/v2/models/digits"):
        response = fleet.front.request("POST" if path == PREDICT else "GET", path, {"X-Api-Key": "wrong"})
        assert (response.status_code, response.json()["type"]) == (401, "UnauthorizedError")
    assert [len(machine.front.log()) for machine in fleet.machines] == before


def test_metadata_and_the_playground_are_those_of_a_machine(fleet: Fleet) -> None:
    assert fleet.front.request("GET", "/v1/models").json() == {"models": ["digits"]}
    assert fleet.front.request("GET", "/v2/models/digits/ready").json() == {"name": "digits", "ready": True}
    assert fleet.front.request("GET", "/playground/models").json()["models"][0]["default"] == "1.0"
    assert fleet.front.request("GET", "/").headers["Content-Type"].startswith("text/html")


def test_headers_of_both_fronts_stand_once_in_an_answer(fleet: Fleet) -> None:
    sent = {"Origin": ORIGIN, "X-Request-Id": "one-id"}
    response = fleet.front.request("POST", PREDICT, OCTETS | sent, data=b"x")
    once = ("X-Request-Id", "Access-Control-Allow-Origin", "Vary", "X-Content-Type-Options")
    assert [response.headers[name] for name in once] == ["one-id", ORIGIN, "Origin", "nosniff"]
    assert wait_until(lambda: [m for m in fleet.machines if m.front.log()[-1]["id"] == "one-id"], TIMEOUT_S)


def test_a_machine_with_another_certificate_is_no_machine(fleet: Fleet, tmp_path: Path) -> None:
    addresses = [machine.address for machine in fleet.machines[:2]]
    machines = {
        "addresses": addresses,
        "certificate": str(fleet.machines[2].front.front.certificate),
        "name": "localhost",
    }
    before = [machine.told.asked for machine in fleet.machines]
    with run_front(tmp_path, fleet.front.config, machines=machines) as front:
        response = front.predict(b"x")
        assert (response.status_code, response.json()["type"]) == (502, "UpstreamError")
        refused = "its certificate is refused (self-signed certificate); expected one for localhost that"
        assert all(refused in state for state in front.front.status().machines.values())
        said = front.command("status").stdout
    assert f"machine {addresses[0]}: {refused}" in said
    assert [machine.told.asked for machine in fleet.machines] == before


@pytest.mark.parametrize(
    ("machines", "message"),
    [
        ({"addresses": ["10.0.0.1:8443"]}, "expected 2 to 64 addresses, got 1"),
        ({"addresses": ["10.0.0.1:8443", "gpu.example.com:8443"]}, "expected IP:PORT"),
        ({"addresses": ["10.0.0.1:8443", "10.0.0.1:8443"]}, "each address once"),
        ({"addresses": ["10.0.0.1:8443", "[fd00::1]:99999"]}, "expected IP:PORT"),
        ({"addresses": ["10.0.0.1:8443", "[fe80::1%eth0]:8443"]}, "expected IP:PORT"),
        ({"addresses": ["10.0.0.1:8443", "10.0.0.2:8٤٤٣"]}, "expected IP:PORT"),
        ({"addresses": ["10.0.0.1:8443", "127.0.0.1:8443"]}, "127.0.0.1:8443 is where this front listens"),
        ({"name": "vision; autoindex on"}, "name"),
    ],
)
def test_machines_are_addresses_that_nginx_takes(tmp_path: Path, machines: dict[str, Any], message: str) -> None:
    good = {"addresses": ["10.0.0.1:8443", "[fd00:0::1]:8443"], "certificate": "machines.pem", "name": "localhost"}
    for given in (good, good | machines):
        settings = tmp_path / "front.yaml"
        settings.write_text(yaml.safe_dump({**yaml.safe_load(SETTINGS.read_text()), "machines": given}))
        if given == good:
            front = Front(tmp_path, settings, tmp_path / "config.properties")
            assert front.machines is not None
            assert front.machines.addresses == ("10.0.0.1:8443", "[fd00::1]:8443")
        else:
            with pytest.raises(ConfigError, match=message):
                Front(tmp_path, settings, tmp_path / "config.properties")


@pytest.mark.parametrize("content", [None, b"no certificate"], ids=["missing", "of another kind"])
def test_status_names_a_wrong_certificate_before_the_first_start_too(tmp_path: Path, content: bytes | None) -> None:
    machines = {"addresses": ["127.0.0.1:1", "127.0.0.1:2"], "certificate": "machines.pem", "name": "localhost"}
    settings, certificate = tmp_path / "front.yaml", tmp_path / "machines.pem"
    settings.write_text(yaml.safe_dump({**yaml.safe_load(SETTINGS.read_text()), "machines": machines}))
    if content is not None:
        certificate.write_bytes(content)
    with pytest.raises(ConfigError, match=f"{certificate}: expected certificates in PEM; machines.certificate is"):
        Front(tmp_path, settings, tmp_path / "config.properties").status()
