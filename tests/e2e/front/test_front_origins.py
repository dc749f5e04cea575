"""Browsers' pages of other origins, and a front that shares its name with others: `allowed_origins`, `path_prefix`."""

from collections.abc import Iterator
from typing import Any

import pytest

from e2e.conftest import Service
from e2e.test_requests import OCTETS, to_v1

from .conftest import JSON, Running, run_front

ORIGIN, OTHER = "https://app.example.com", "https://app.example.com.evil.test"
PREFIX = "/vision-1"
PREFLIGHT = {"X-Api-Key": "", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}


@pytest.fixture(scope="module")
def shared(torchserve: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder, config = tmp_path_factory.mktemp("shared"), torchserve.folder / "config.properties"
    changes = {"allowed_origins": [ORIGIN, "http://localhost:3000"], "path_prefix": PREFIX}
    with run_front(folder, config, **changes) as running:
        yield running


ROUTES = [
    ("POST", "/predictions/digits"),
    ("POST", "/predictions/digits/1.0"),
    ("POST", "/explanations/digits"),
    ("POST", "/v1/models/digits:predict"),
    ("POST", "/v2/models/digits/infer"),
    ("POST", "/v2/models/digits/versions/1.0/infer"),
    ("GET", "/v2"),
    ("GET", "/v2/models/digits"),
    ("GET", "/v2/models/digits/ready"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/digits"),
    ("GET", "/v2/health/ready"),
    ("GET", "/v2/health/live"),
    ("GET", "/ping"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_stands_behind_the_prefix_and_nowhere_else(
    shared: Running, seven: bytes, method: str, path: str
) -> None:
    arguments: dict[str, Any] = {"headers": JSON, "data": to_v1(seven)} if method == "POST" else {}
    assert shared.request(method, PREFIX + path, **arguments).status_code == 200
    for elsewhere in (path, "/vision-12" + path, "/other" + PREFIX + path, PREFIX + PREFIX + path):
        assert shared.request(method, elsewhere, **arguments).status_code == 404


def test_errors_behind_the_prefix_are_those_of_the_route(shared: Running) -> None:
    wrong_method = shared.request("GET", f"{PREFIX}/v2/models/digits/infer")
    assert (wrong_method.status_code, wrong_method.headers["Allow"]) == (405, "POST, PUT")
    for response in (wrong_method, shared.request("GET", f"{PREFIX}/v2/models/nothing")):
        assert response.json()["error"] == response.json()["message"]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_page_of_a_named_origin_may_ask(shared: Running, seven: bytes, method: str, path: str) -> None:
    preflight = shared.request("OPTIONS", PREFIX + path, {**PREFLIGHT, "Origin": ORIGIN})
    assert (preflight.status_code, preflight.content) == (204, b"")
    assert preflight.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert method in preflight.headers["Access-Control-Allow-Methods"]
    assert "X-Api-Key" in preflight.headers["Access-Control-Allow-Headers"]
    arguments: dict[str, Any] = {"data": to_v1(seven)} if method == "POST" else {}
    answer = shared.request(method, PREFIX + path, {**JSON, "Origin": ORIGIN}, **arguments)
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, ORIGIN)
    assert (answer.headers["Vary"], "Access-Control-Max-Age" in answer.headers) == ("Origin", False)


def test_a_page_of_a_named_origin_can_read_errors(shared: Running) -> None:
    answer = shared.request("POST", f"{PREFIX}/predictions/digits", {"Origin": ORIGIN, "X-Api-Key": "wrong"}, data=b"x")
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (401, ORIGIN)


@pytest.mark.parametrize("origin", [OTHER, "null", "https://APP.example.org", "http://app.example.com"])
def test_pages_of_other_origins_may_not(shared: Running, seven: bytes, origin: str) -> None:
    path = f"{PREFIX}/predictions/digits"
    preflight = shared.request("OPTIONS", path, {**PREFLIGHT, "Origin": origin})
    answer = shared.request("POST", path, {**OCTETS, "Origin": origin}, data=seven)
    assert (preflight.status_code, answer.status_code) == (401, 200)
    for response in (preflight, answer):
        assert not [name for name in response.headers if name.startswith("Access-Control-")]


def test_without_origins_nothing_is_said_of_them(running: Running, seven: bytes) -> None:
    preflight = running.request("OPTIONS", "/predictions/digits", {**PREFLIGHT, "Origin": ORIGIN})
    answer = running.predict(seven, Origin=ORIGIN)
    assert (preflight.status_code, answer.status_code) == (401, 200)
    for response in (preflight, answer):
        assert not [name for name in response.headers if name.startswith("Access-Control-") or name == "Vary"]
