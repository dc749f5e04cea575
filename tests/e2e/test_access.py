"""Closed by default: who may ask what of a server with the shipped configuration. Canaries prove that nothing runs.

docs/operate/routes.md lists the routes; its table is what is asked here.
"""

import re
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from http.client import BadStatusLine, HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import grpc
import orjson
import psutil
import pytest
from conftest import RunHere
from http_fakes import Answer, Request, serve_requests

from mar_tools.serving.ports import LOOPBACK
from mar_tools.serving.torchserve_api import ServerError

from .canaries import Canaries, build_canaries
from .conftest import ROOT, Service, serve

Headers = Sequence[tuple[str, str]]
PAGE = ROOT / "docs" / "operate" / "routes.md"
KINDS = ("inference", "management", "API")
ROW = re.compile(r"\| (inference|management|metrics) \| `([A-Z]+) (\S+)` \| (inference|management|API|none) \|")
GRPC_ROW = re.compile(r"\| gRPC (inference|management) \| `(\S+)` \| (inference|management) \|")
PARAMETER = re.compile(r"\{.*?\}")


class Route(NamedTuple):
    """token: the kind that it takes."""

    port: str
    method: str
    path: str
    token: str

    @property
    def target(self) -> str:
        """For a model that is there, so that a route that does not refuse is seen to act."""
        return self.path.replace("{model}", "digits").replace("{version}", "1.0").replace("{workflow}", "canary")


ROUTES = [Route(*found) for found in ROW.findall(PAGE.read_text(encoding="utf-8"))]
GUARDED = [route for route in ROUTES if route.token != "none"]
HARMLESS = [
    route
    for route in GUARDED
    if route.port == "inference" or (route.token == "management" and route.method in ("GET", "OPTIONS"))
]
OPEN = [route for route in ROUTES if route.token == "none"]


class Reply(NamedTuple):
    """status: 0 where the server closed the connection without an answer."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def refused_its_token(self) -> bool:
        return self.status == 400 and '"InvalidKeyException"' in self.body


def ask(
    port: int, target: str, method: str = "GET", headers: Headers = (), body: bytes = b"", host: str = LOOPBACK
) -> Reply:
    """Send path, method and headers as they are given: `requests` would tidy them up. host: of the Host header."""
    with closing(HTTPConnection(LOOPBACK, port, timeout=30)) as connection:
        connection.connect()  # which may be refused
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in (("Host", host), ("Connection", "close"), ("Content-Length", str(len(body))), *headers):
            connection.putheader(name, value)
        try:
            connection.endheaders(body)
            answer = connection.getresponse()
        except (BadStatusLine, ConnectionError):
            return Reply(0, {}, "")
        return Reply(answer.status, dict(answer.getheaders()), answer.read().decode("utf-8", "replace"))


def bearer(token: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {token}")


def port(service: Service, name: str) -> int:
    ports: dict[str, int] = service.server.ports()
    return ports[f"{name}_address"]


def temporary_folder(service: Service) -> Path:
    process = service.server.process()
    assert process is not None
    return Path(process.environ()["TMPDIR"])


def family(service: Service) -> list[psutil.Process]:
    frontend = service.server.process()
    assert frontend is not None
    return [frontend, *frontend.children(recursive=True)]


def state(service: Service) -> dict[str, Any]:
    """All that a request could change: models and workers, the store, what was unpacked, workflows, tokens."""
    client, unpacked = service.server.client, temporary_folder(service) / "models"
    workflows = ask(port(service, "management"), "/workflows", headers=[bearer(client.token("management"))])
    return {
        "models": {name: client.describe(name) for name in client.list_models()},
        "workers": sorted(process.pid for process in family(service)),
        "store": sorted((path.name, path.lstat().st_mtime_ns) for path in service.model_store.iterdir()),
        "unpacked": sorted(str(path) for path in unpacked.rglob("*") if path.is_file() or path.is_symlink()),
        "workflows": workflows.body,
        "tokens": {kind: client.token(kind) for kind in KINDS},
    }


def steady(found: dict[str, Any]) -> dict[str, Any]:
    """Without what changes by itself: the memory that workers use."""
    return {**found, "models": re.sub(r"'memoryUsage': \d+", "", str(found["models"]))}


@pytest.fixture(scope="module")
def canaries(tmp_path_factory: pytest.TempPathFactory) -> Canaries:
    return build_canaries(tmp_path_factory.mktemp("cage") / "canaries")


@pytest.fixture
def unchanged(service: Service, canaries: Canaries) -> Iterator[None]:
    """What the test asks has to leave the server as it was, and the canaries silent."""
    before = steady(state(service))
    yield
    assert steady(state(service)) == before
    assert not canaries.witness.exists()


@pytest.fixture(scope="module")
def site(canaries: Canaries) -> Iterator[tuple[str, list[str]]]:
    """A web server that has the archives: its URL, and what was fetched from it."""
    fetched: list[str] = []

    def answer(request: Request) -> Answer:
        fetched.append(request.path)
        return Answer(200, (canaries.folder / Path(request.path).name).read_bytes())

    with serve_requests(answer) as url:
        yield url, fetched
    assert not fetched


def test_it_listens_on_loopback_at_five_ports_and_nowhere_else(service: Service) -> None:
    connections = [found for process in family(service) for found in process.net_connections("inet")]
    listening = [found.laddr for found in connections if found.status == psutil.CONN_LISTEN]
    assert {address.ip.removeprefix("::ffff:") for address in listening} == {LOOPBACK}  # Java's sockets are IPv6 ones
    assert sorted(address.port for address in listening) == sorted(service.server.ports().values())
    assert not [found for found in connections if found.type.name == "SOCK_DGRAM"]


def test_sockets_unpacked_archives_and_tokens_are_for_the_owner_alone(service: Service) -> None:
    folder = temporary_folder(service)
    sockets = [path for path in folder.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)]
    assert len(sockets) == len(service.server.client.list_models())  # a worker of each
    for path in [folder, *folder.rglob("*"), service.folder / "key_file.json"]:
        assert path.is_symlink() or path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("route", GUARDED, ids=lambda route: f"{route.port} {route.method} {route.path}")
@pytest.mark.usefixtures("unchanged")
def test_a_route_takes_no_token_but_its_own(service: Service, route: Route, seven: bytes) -> None:
    tokens = {kind: service.server.client.token(kind) for kind in KINDS}
    wrong = [tokens[kind] for kind in KINDS if kind != route.token] + ["c2luZ2Vy", tokens[route.token][:-1]]
    for headers in [[], *([bearer(token)] for token in wrong)]:
        reply = ask(port(service, route.port), route.target, route.method, headers, seven)
        assert reply.refused_its_token, (headers, reply)
    if route in HARMLESS:
        reply = ask(port(service, route.port), route.target, route.method, [bearer(tokens[route.token])], seven)
        assert reply.status >= 200
        assert not reply.refused_its_token, reply


def test_what_needs_no_token_tells_routes_and_counters_and_no_secret(service: Service) -> None:
    assert {(route.port, route.path) for route in OPEN} == {
        *((name, path) for name in ("inference", "management", "metrics") for path in ("/", "/api-description")),
        ("metrics", "/metrics"),
    }
    secrets = [service.server.client.token(kind) for kind in KINDS] + [str(service.folder), str(ROOT)]
    for route in OPEN:
        reply = ask(port(service, route.port), route.target, route.method)
        assert reply.status == 200
        assert not [secret for secret in secrets if secret in reply.body]
        assert not [name for name in reply.headers if name.lower().startswith("access-control")]


def test_every_route_that_torchserve_describes_is_on_the_page(service: Service) -> None:
    listed = {(route.port, route.method, PARAMETER.sub("{}", route.path)) for route in ROUTES}
    for name in ("inference", "management", "metrics"):
        paths = orjson.loads(ask(port(service, name), "/", "OPTIONS").body)["paths"]
        described = {
            (name, method.upper(), PARAMETER.sub("{}", path)) for path, methods in paths.items() for method in methods
        }
        assert described - listed == set()
        assert described


@pytest.mark.parametrize("row", GRPC_ROW.findall(PAGE.read_text(encoding="utf-8")), ids=lambda row: row[1])
@pytest.mark.usefixtures("unchanged")
def test_a_grpc_method_takes_no_token_but_its_own(service: Service, row: tuple[str, str, str]) -> None:
    name, method, own = row
    wrong = [service.server.client.token(kind) for kind in KINDS if kind != own]
    address = f"{LOOPBACK}:{service.server.ports()[f'grpc_{name}_port']}"
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(f"/org.pytorch.serve.grpc.{method}")
        for metadata in [(), *((("authorization", f"Bearer {token}"),) for token in [*wrong, "c2luZ2Vy"])]:
            with pytest.raises(grpc.RpcError) as refused:
                call(b"", metadata=metadata, timeout=30)
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        if method.endswith(("Ping", "ListModels")):
            assert call(b"", metadata=(("authorization", f"Bearer {service.server.client.token(own)}"),), timeout=30)


REGISTER = "/models?url=canary.mar&initial_workers=1&synchronous=true"
FORM = ("Content-Type", "application/x-www-form-urlencoded")
SITE = [("Origin", "https://evil.example"), ("Referer", "https://evil.example/token")]


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("DELETE", "//models/digits", []),
        ("DELETE", "/models//digits", []),
        ("DELETE", "/./models/digits", []),
        ("DELETE", "/api-description/../models/digits", []),
        ("DELETE", "/%6dodels/digits", []),
        ("DELETE", "/%2e/models/digits", []),
        ("DELETE", "/models%2fdigits", []),
        ("DELETE", "/models;x=1/digits", []),
        ("DELETE", "/models/digits/", []),
        ("DELETE", "/models/digits?/api-description", []),
        ("DELETE", "/models/digits#/api-description", []),
        ("DELETE", "\\models\\digits", []),
        ("DELETE", "http://127.0.0.1/models/digits", []),
        ("DELETE", "http://127.0.0.1/api-description", []),
        ("DELETE", "*", []),
        ("delete", "/models/digits", []),
        ("POST", "/models/digits", [("X-HTTP-Method-Override", "DELETE")]),
        ("POST", "/models/digits?_method=DELETE", []),
        ("HEAD", "/models", []),
        ("TRACE", "/models", []),
        ("TRACE", "/", []),
        ("PATCH", "/models/digits", []),
        ("CONNECT", "127.0.0.1:8081", []),
        ("POST", REGISTER, [FORM, *SITE]),
        ("POST", REGISTER, [("Content-Type", "text/plain"), *SITE]),
        ("POST", REGISTER, [("Content-Type", "multipart/form-data; boundary=x"), *SITE]),
        ("POST", REGISTER, [("Content-Type", "application/json"), *SITE]),
        ("OPTIONS", "/models", [("Access-Control-Request-Method", "POST"), *SITE]),
        ("POST", REGISTER, [("X-Forwarded-For", LOOPBACK), ("Forwarded", f"for={LOOPBACK}")]),
    ],
)
@pytest.mark.usefixtures("unchanged")
def test_no_path_method_or_header_goes_round_the_token(
    service: Service, method: str, target: str, headers: Headers
) -> None:
    for host in (LOOPBACK, "evil.example"):  # the second as after DNS rebinding
        reply = ask(port(service, "management"), target, method, headers, b"url=canary.mar", host=host)
        assert reply.status == 0 or reply.status >= 400
        assert not [name for name in reply.headers if name.lower().startswith("access-control")]


@pytest.mark.usefixtures("unchanged")
def test_a_token_counts_in_its_header_alone_and_whole(service: Service) -> None:
    token = service.server.client.token("management")
    forms: list[tuple[str, Headers]] = [
        (f"/models?token={token}", []),
        (f"/models?Authorization=Bearer%20{token}", []),
        ("/models", [("Cookie", f"Authorization=Bearer {token}")]),
        ("/models", [("Proxy-Authorization", f"Bearer {token}")]),
        ("/models", [("Authorization", token)]),
        ("/models", [("Authorization", f"Basic {token}")]),
        ("/models", [("Authorization", f"Bearer {token}x")]),
        ("/models", [("Authorization", "Bearer ")]),
        ("/models", [("Authorization", "Bearer null")]),
        ("/models", [bearer("c2luZ2Vy"), bearer(token)]),
    ]
    for target, headers in forms:
        assert ask(port(service, "management"), target, "GET", headers).refused_its_token, (target, headers)
    assert ask(port(service, "management"), "/models", "GET", [bearer(token)]).status == 200


# Not in the store, so not registered, with the management token too. {folder}: of canaries, {site}: a server of them.
ARCHIVES_ELSEWHERE = [
    "{site}/canary.mar",
    "{SITE}/canary.mar",
    "https://s3.amazonaws.com/bucket/canary.mar",
    "s3://bucket/canary.mar",
    "ftp://127.0.0.1/canary.mar",
    "jar:{site}/canary.mar",
    " {site}/canary.mar",
    "(?!)",
    "file://{folder}/canary.mar",
    "file:{folder}/canary.mar",
    "fil://{folder}/canary.mar",
    "{folder}/canary.mar",
    "{folder}/../canaries/unpacked",
    "../canary.mar",
    "..%2fcanary.mar",
    "%2e%2e/canary.mar",
    "%252e%252e%252fcanary.mar",
    "..\\canary.mar",
    "C:\\canary.mar",
    "\\\\127.0.0.1\\share\\canary.mar",
    "//127.0.0.1/share/canary.mar",
    "canary.mar\0.mar",
    "file://{folder}/unpacked",
]


@pytest.mark.parametrize("url", ARCHIVES_ELSEWHERE)
@pytest.mark.usefixtures("unchanged")
def test_the_management_token_registers_no_archive_from_elsewhere(
    service: Service, canaries: Canaries, site: tuple[str, list[str]], url: str
) -> None:
    url = url.format(site=site[0], SITE=site[0].upper(), folder=canaries.folder)
    headers = [bearer(service.server.client.token("management"))]
    body = orjson.dumps({"url": url, "initial_workers": 1, "synchronous": True})
    query = f"/models?url={quote(url, safe='')}&initial_workers=1&synchronous=true"
    management = port(service, "management")
    for reply in (
        ask(management, query, "POST", headers),
        ask(management, "/models", "POST", [("Content-Type", "application/json"), *headers], body),
    ):
        assert 400 <= reply.status < 500, reply
    assert site[1] == []


@pytest.mark.usefixtures("unchanged")
def test_the_management_token_registers_no_workflow(
    service: Service, canaries: Canaries, site: tuple[str, list[str]]
) -> None:
    """A workflow archive in the store of models is not in the store of workflows."""
    for url in (
        f"{site[0]}/canary.war",
        f"file://{canaries.workflow}",
        str(canaries.workflow),
        str(canaries.folder / "workflow"),
        "../model_store/canary.war",
        "canary.war",
    ):
        headers = [bearer(service.server.client.token("management"))]
        target = f"/workflows?url={quote(url, safe='')}&workflow_name=canary"
        reply = ask(port(service, "management"), target, "POST", headers)
        assert 400 <= reply.status < 500, (url, reply)
    assert site[1] == []


def test_a_canary_sings_when_the_store_links_to_it(service: Service, canaries: Canaries) -> None:
    """So the silence of the others means something. Who can write to the store is trusted: links are followed."""
    (service.model_store / "canary.mar").symlink_to(canaries.archive)
    try:
        service.server.client.register("canary.mar", workers=1, batch_size=1, max_batch_delay_ms=1)
        service.server.client.unregister("canary", None)
        assert canaries.witness.exists()
    finally:
        (service.model_store / "canary.mar").unlink()
        canaries.witness.unlink(missing_ok=True)


def test_known_limit_the_management_token_registers_an_unpacked_archive_of_this_machine(
    service: Service, canaries: Canaries
) -> None:
    """SECURITY.md says so. Should it ever fail, TorchServe asks `allowed_urls` for folders too."""
    headers = [bearer(service.server.client.token("management"))]
    target = f"/models?url={quote(str(canaries.unpacked), safe='')}&initial_workers=1&synchronous=true"
    assert ask(port(service, "management"), target, "POST", headers).status == 200
    service.server.client.unregister("canary", None)
    canaries.witness.unlink()


@pytest.mark.parametrize(
    "archive", ["/tmp/unpacked", "unpacked", "../canary.mar", "file:///tmp/canary.mar", "store/canary.mar", ""]
)
def test_our_command_registers_file_names_alone(service: Service, archive: str) -> None:
    with pytest.raises(ServerError, match="expected the file name of an archive in the model store"):
        service.server.client.register(archive, workers=1, batch_size=1, max_batch_delay_ms=1)


@pytest.fixture(scope="module")
def strict(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Without the API of models and of metrics, and with tokens that live nine seconds."""
    changes = {"enable_model_api": "false", "enable_metrics_api": "false", "token_expiration_min": "0.15"}
    with serve([archives / "digits.mar"], tmp_path_factory.mktemp("strict"), **changes) as strict:
        yield strict


def test_an_expired_token_opens_nothing_and_our_client_renews_it(strict: Service) -> None:
    old = {kind: strict.server.client.token(kind) for kind in ("inference", "management")}
    questions = {
        "inference": (port(strict, "inference"), "/ping"),
        "management": (port(strict, "management"), "/models"),
    }
    deadline = time.monotonic() + 30
    for kind, (number, target) in questions.items():
        while not ask(number, target, headers=[bearer(old[kind])]).refused_its_token:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert strict.server.client.list_models() == ["digits"]  # with a management token that it asked for
    assert strict.server.client.token("management") != old["management"]
    assert (strict.folder / "key_file.json").stat().st_mode & 0o077 == 0
    assert ask(*questions["management"], headers=[bearer(old["management"])]).refused_its_token


def test_without_the_model_api_nothing_is_registered(strict: Service, canaries: Canaries) -> None:
    """Neither from the store nor, which TorchServe does else, from a folder of this machine."""
    shutil.copy(canaries.archive, strict.model_store)
    client = strict.server.client
    folder = quote(str(canaries.unpacked), safe="")
    registered = ask(
        port(strict, "management"), f"/models?url={folder}", "POST", [bearer(client.renew_token("management"))]
    )
    assert registered.status == 405
    with pytest.raises(ServerError, match="not allowed"):
        client.register("canary.mar", workers=1, batch_size=1, max_batch_delay_ms=1)
    with pytest.raises(ServerError, match="not allowed"):
        client.unregister("digits", None)
    client.scale("digits", None, workers=1)  # which it does not stop
    assert client.list_models() == ["digits"]
    assert not canaries.witness.exists()


def test_the_port_of_metrics_can_be_closed(strict: Service) -> None:
    with pytest.raises(ConnectionRefusedError):
        ask(port(strict, "metrics"), "/metrics")


def test_tokens_stand_in_no_log_no_process_list_and_no_message(run_here: RunHere, service: Service) -> None:
    tokens = [service.server.client.token(kind) for kind in KINDS]
    messages = [
        run_here("manage_models.py", "--config", service.server.config, *arguments)
        for arguments in (("unregister", "nothing"), ("describe", "nothing"), ("list", "--json"))
    ]
    said = [finished.stdout + finished.stderr for finished in messages]
    said += [path.read_text(errors="replace") for path in (service.folder / "logs").iterdir() if path.is_file()]
    for process in family(service):
        said += [*process.cmdline(), *process.environ().values()]
    assert not [text for text in said for token in tokens if token in text]
