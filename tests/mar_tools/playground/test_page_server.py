"""The page's own server answers its page alone. It holds the token, so other sites must not reach TorchServe by it."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from threading import Thread

import pytest
import requests

from mar_tools.command_line import ROOT
from mar_tools.playground.assets import POLICY, SOURCE
from mar_tools.playground.page_server import PageServer
from mar_tools.serving.config_file import with_values
from mar_tools.serving.ports import LOOPBACK, free_addresses
from vision_serving.errors import ConfigError

PREDICT = "predictions/digits"
TIMEOUT_S = 10


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    """Before a TorchServe that does not run."""
    config = tmp_path_factory.mktemp("server") / "config.properties"
    shipped = (ROOT / "config.properties").read_text()
    config.write_text(with_values(shipped, {**free_addresses(), "max_request_size": "1000"}))
    with PageServer(config) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(
    server: PageServer, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> requests.Response:
    return requests.request(method, server.url + path, data=body, headers=headers, timeout=TIMEOUT_S)


@pytest.mark.parametrize("file", sorted(path.name for path in SOURCE.iterdir()))
def test_each_file_of_the_page_is_served_with_its_policy(file: str, server: PageServer) -> None:
    path = {"index.html": "", "docs.html": "docs"}.get(file, f"playground/{file}")
    answer = ask(server, "GET", path)
    assert (answer.status_code, answer.content) == (200, (SOURCE / file).read_bytes())
    assert answer.headers["Content-Security-Policy"] == POLICY


@pytest.mark.parametrize(
    "path", ["playground/index.html", "playground/..%2fx.js", "playground/samples/x.png", "key_file.json"]
)
def test_nothing_else_is_a_file(path: str, server: PageServer) -> None:
    assert ask(server, "GET", path).status_code == 404


OTHERS = {
    "another name of this machine": {"Host": "evil.example:80"},
    "another origin": {"Origin": "https://evil.example"},
    "another port": {"Origin": "http://127.0.0.1:1"},
    "no origin at all": {"Origin": "null"},
    "another site": {"Sec-Fetch-Site": "cross-site"},
    "a page of another port": {"Sec-Fetch-Site": "same-site"},
}


@pytest.mark.parametrize("headers", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize(("method", "path"), [("GET", "playground/models"), ("POST", PREDICT)])
def test_other_sites_are_refused(method: str, path: str, headers: dict[str, str], server: PageServer) -> None:
    answer = ask(server, method, path, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (403, "ForbiddenError")


@pytest.mark.parametrize("path", ["models", "predictions/../models", "v1/models/digits:predict", "predictions/a/b/c"])
def test_only_predictions_and_explanations_are_passed_on(path: str, server: PageServer) -> None:
    session = requests.Session()
    request = requests.Request("POST", server.url).prepare()
    request.url = server.url + path  # as it is written
    assert session.send(request, timeout=TIMEOUT_S).status_code == 404


def test_a_body_above_the_server_s_limit_is_refused_before_it_is_read(server: PageServer) -> None:
    answer = ask(server, "POST", PREDICT, bytes(1001))
    assert (answer.status_code, answer.json()["type"]) == (413, "RequestTooLargeError")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "playground/models", 503), ("POST", PREDICT, 502)])
def test_a_server_that_does_not_run_is_an_error_that_says_what_to_do(
    method: str, path: str, status: int, server: PageServer
) -> None:
    answer = ask(server, method, path)
    assert answer.status_code == answer.json()["code"] == status
    assert "start it with python scripts/serve_models.py start" in answer.json()["message"]


def send(server: PageServer, request: bytes) -> bytes:
    """Send what no library would, say no more, and return all that comes."""
    with socket.create_connection((LOOPBACK, server.server_port), TIMEOUT_S) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("length", ["-1", "1e3", "9" * 5000, "+5", "0x10", "\u0661"])
def test_a_length_that_is_none_is_refused(length: str, server: PageServer) -> None:
    host = f"Host: {LOOPBACK}:{server.server_port}"
    answer = send(server, f"POST /{PREDICT} HTTP/1.1\r\n{host}\r\nContent-Length: {length}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 411 ")


def test_a_body_that_ends_early_is_not_passed_on(server: PageServer) -> None:
    head = f"POST /{PREDICT} HTTP/1.1\r\nHost: {LOOPBACK}:{server.server_port}\r\nContent-Length: 100\r\n\r\n"
    assert send(server, head.encode() + b"half") == b""


def test_what_follows_a_refused_body_is_no_request(server: PageServer) -> None:
    inner = f"GET /playground/server.json HTTP/1.1\r\nHost: {LOOPBACK}:{server.server_port}\r\n\r\n"
    head = f"POST /{PREDICT} HTTP/1.1\r\nHost: evil.example\r\nContent-Length: {len(inner)}\r\n\r\n"
    assert send(server, (head + inner).encode()).count(b"HTTP/1.1") == 1


def test_those_that_say_nothing_hold_up_nobody(server: PageServer) -> None:
    with ExitStack() as stack:
        for _ in range(50):
            silent = stack.enter_context(socket.create_connection((LOOPBACK, server.server_port), TIMEOUT_S))
            silent.sendall(b"POST /predictions/digits HTTP/1.1\r\n")
        assert ask(server, "GET", "").status_code == 200


def test_the_software_behind_it_is_not_told(server: PageServer) -> None:
    assert ask(server, "GET", "").headers["Server"].strip() == "playground"


@pytest.mark.parametrize("path", ["playground/reports/digits", "playground/reports/../1.0", "playground/reports/a/b/c"])
def test_a_report_is_of_a_model_and_a_version(path: str, server: PageServer) -> None:
    request = f"GET /{path} HTTP/1.1\r\nHost: {LOOPBACK}:{server.server_port}\r\n\r\n"
    assert send(server, request.encode()).startswith(b"HTTP/1.1 404 ")


def test_every_file_of_the_page_is_short() -> None:
    assert [path.name for path in SOURCE.iterdir() if len(path.read_text().splitlines()) > 300] == []


def test_a_port_that_is_taken_is_named_with_who_has_it(server: PageServer) -> None:
    with pytest.raises(ConfigError, match=rf"port {server.server_port} is taken by process \d+ .*--port"):
        PageServer(ROOT / "config.properties", server.server_port)
