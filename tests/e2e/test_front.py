"""The front with real nginx before a real TorchServe: who may ask, what is refused and how, what gets through."""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests
import yaml
from tritonclient import http as triton

from mar_tools.front import nginx as nginx_module
from mar_tools.front.front import SETTINGS, Front
from mar_tools.front.nginx import NginxError, find_nginx
from mar_tools.serving.ports import find_free_ports
from mar_tools.waiting import wait_until
from vision_serving.errors import ConfigError

from .conftest import Service, run_script, serve
from .front_faults import (
    Address,
    SlowSenders,
    Upstream,
    exchange,
    malformed_requests,
    upstream,
)
from .test_requests import GARBAGE, OCTETS, best_label, to_v1
from .traffic import keep_comparing

ROOT = Path(__file__).resolve().parents[2]
JSON = {"Content-Type": "application/json"}
FORM_URLENCODED = "application/x-www-form-urlencoded"
MAX_BODY = 1_000_000
TIMEOUT_S = 30
REQUESTS_PER_S, BURST, CONCURRENT = 200, 100, 32
HEADER_TIMEOUT_S = 3
REMEMBERED_S = 2.2  # longer than the front remembers an answer of the management API
# Two workers and a short delay; without the space that write_configuration looks for.
MODELS = (
    '{"digits":{"1.0":{"defaultVersion":true,"marName":"digits.mar","minWorkers":2,"maxWorkers":4,"batchSize":4,'
    '"maxBatchDelay":2}}}'
)


@dataclass(frozen=True)
class Running:
    """A front that runs, and the key of a client of it."""

    front: Front
    key: str
    settings: Path
    config: Path

    @property
    def address(self) -> Address:
        host, _, port = self.front.url.removeprefix("https://").rpartition(":")
        return host, int(port)

    def request(self, method: str, path: str, headers: dict[str, str] | None = None, **arguments: Any) -> Any:
        """With the client's key, unless `headers` name another; a connection of its own."""
        headers = {"X-Api-Key": self.key, **(headers or {})}
        arguments.setdefault("verify", self.front.certificate)
        return requests.request(method, self.front.url + path, headers=headers, timeout=TIMEOUT_S, **arguments)

    def predict(self, image: bytes, query: str = "", **headers: str) -> Any:
        return self.request("POST", f"/predictions/digits{query}", {**OCTETS, **headers}, data=image)

    def add_client(self, name: str) -> str:
        key = self.front.clients.add(name)
        self.front.reload()
        return key

    def command(self, action: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        options = ("--folder", self.front.folder, "--settings", self.settings, "--config", self.config)
        return run_script("serve_front.py", action, *arguments, *options)

    def log(self) -> list[dict[str, Any]]:
        lines = (self.front.logs / "access.log").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def line_of(self, response: requests.Response) -> dict[str, Any]:
        """Of the log, which nginx writes when it has sent the answer."""
        number = response.headers["X-Request-Id"]
        found = wait_until(lambda: [line for line in self.log() if line["id"] == number], TIMEOUT_S)
        assert found, "the answer is not in the log"
        return found[0]


@pytest.fixture(scope="session")
def nginx() -> None:
    """The machine's own nginx, or Debian's without root."""
    try:
        find_nginx()
    except NginxError as error:
        fetched = subprocess.run(
            ["bash", str(ROOT / "deploy" / "nginx" / "fetch.sh")], capture_output=True, text=True, timeout=300
        )
        if fetched.returncode != 0:
            pytest.skip(f"{error}; fetch.sh: {fetched.stderr.strip()[-200:]}")


@contextmanager
def run_front(folder: Path, config: Path, **changes: Any) -> Iterator[Running]:
    """changes: of the shipped front.yaml."""
    [port] = find_free_ports(1)
    settings = folder / "front.yaml"
    shipped = yaml.safe_load(SETTINGS.read_text())
    settings.write_text(yaml.safe_dump({**shipped, "listen": f"127.0.0.1:{port}", **changes}))
    front = Front(folder / "front", settings, config)
    key = front.start()
    assert key is not None
    try:
        yield Running(front, key, settings, config)
    finally:
        front.stop()


@pytest.fixture(scope="module")
def torchserve(nginx: None, archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    changes = {"models": MODELS, "max_request_size": str(MAX_BODY)}
    with serve([archives / "digits.mar"], tmp_path_factory.mktemp("torchserve"), **changes) as service:
        yield service


@pytest.fixture(scope="module")
def running(torchserve: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    limits = {
        "requests_per_s": REQUESTS_PER_S, "burst": BURST, "concurrent_requests": CONCURRENT,
        "header_timeout_s": HEADER_TIMEOUT_S, "body_timeout_s": HEADER_TIMEOUT_S, "answer_timeout_s": 10,
    }  # fmt: skip
    config = torchserve.folder / "config.properties"
    with run_front(tmp_path_factory.mktemp("front"), config, **limits) as running:
        yield running


@pytest.fixture(scope="module")
def told(nginx: None) -> Iterator[Upstream]:
    with upstream() as told:
        yield told


@pytest.fixture(scope="module")
def before_upstream(told: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A front before an upstream that fails as it is told, with tokens that a test can let expire."""
    folder = tmp_path_factory.mktemp("before upstream")  # a path may have spaces
    [closed] = find_free_ports(1)
    config = folder / "config.properties"
    config.write_text(f"inference_address={told.address}\nmanagement_address=http://127.0.0.1:{closed}\n")
    write_tokens(folder)
    with run_front(folder, config, answer_timeout_s=1) as running:
        yield running


def write_tokens(folder: Path, year: int = 2999) -> None:
    entry = {"key": "token-of-torchserve", "expiration time": f"{year}-01-01T00:00:00.123456Z"}
    keys = {"inference": entry, "management": entry, "API": {"key": "key-of-the-api"}}
    (folder / "key_file.json").write_text(json.dumps(keys))


# TLS


def test_tls_is_of_today_and_shows_the_certificate(running: Running) -> None:
    context = ssl.create_default_context(cafile=running.front.certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with context.wrap_socket(socket.create_connection(running.address), server_hostname="localhost") as connection:
        assert (connection.version(), connection.selected_alpn_protocol()) == ("TLSv1.3", "h2")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with context.wrap_socket(socket.create_connection(running.address), server_hostname="localhost") as connection:
        assert connection.version() == "TLSv1.2"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_tls_of_yesterday_is_refused(running: Running) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1  # the client would
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(running.address) as plain,
        pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"),
    ):
        context.wrap_socket(plain)


# Keys


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-Api-Key": ""}, 401),
        ({"X-Api-Key": "wrong"}, 401),
        ({"X-Api-Key": "", "Authorization": "Basic KEY"}, 401),
        ({"X-Api-Key": "", "Authorization": "Bearer KEY"}, 200),
        ({"X-Api-Key": "KEY"}, 200),
    ],
    ids=["none", "wrong", "another scheme", "bearer", "X-Api-Key"],
)
def test_predictions_need_a_key(running: Running, seven: bytes, headers: dict[str, str], status: int) -> None:
    response = running.predict(seven, **{name: value.replace("KEY", running.key) for name, value in headers.items()})
    assert response.status_code == status
    if status == 401:
        assert response.json()["type"] == "UnauthorizedError"
        assert response.headers["WWW-Authenticate"] == "Bearer"


def test_a_client_comes_and_goes_by_command(running: Running, seven: bytes) -> None:
    added = running.command("add-client", "visitor")
    key = added.stdout.strip()
    answer = running.predict(seven, **{"X-Api-Key": key})
    assert (added.returncode, answer.status_code) == (0, 200)
    assert running.line_of(answer)["client"] == "visitor"
    assert running.command("remove-client", "visitor").returncode == 0
    assert running.predict(seven, **{"X-Api-Key": key}).status_code == 401
    again = running.command("remove-client", "visitor")
    assert (again.returncode, "no client 'visitor'" in again.stderr) == (1, True)


def test_secrets_are_for_the_owner_and_in_no_file(running: Running) -> None:
    files = [path for path in running.front.folder.rglob("*") if path.is_file()]
    assert [path for path in files if running.key.encode() in path.read_bytes()] == []
    private = ("clients.map", "certificate.key", "nginx.conf")
    assert [oct((running.front.folder / name).stat().st_mode & 0o777) for name in private] == ["0o600"] * 3
    assert oct(running.front.folder.stat().st_mode & 0o777) == "0o700"


def test_a_certificate_of_the_client_can_be_asked_for(before_upstream: Running, told: Upstream) -> None:
    front, own = before_upstream.front, before_upstream.front.certificate
    local = front.folder / "local" / "clients.conf"
    local.write_text(f'ssl_client_certificate "{own}";\nssl_verify_client on;\n')
    try:
        front.reload()
        without = before_upstream.predict(b"x")
        assert (without.status_code, without.json()["type"]) == (400, "ClientCertificateError")
        response = before_upstream.request(
            "POST", "/predictions/digits", OCTETS, data=b"x", cert=(own, front.certificate_key)
        )
        assert response.status_code == told.status
    finally:
        local.unlink()
        front.reload()


# Errors and limits


def raw(method: str, path: str, *lines: str, body: bytes = b"") -> Callable[[str], bytes]:
    """A request of a client, once its key is known."""
    start = "".join(f"{line}\r\n" for line in (f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *lines))
    return lambda key: f"{start}X-Api-Key: {key}\r\n\r\n".encode() + body


PREDICT = "/predictions/digits"
ERRORS: dict[str, tuple[Callable[[str], bytes], int, str]] = {
    "no HTTP": (lambda _: b"\x00\x01\x02\r\n\r\n", 400, "BadRequestError"),
    "two lengths": (raw("POST", PREDICT, "Content-Length: 1", "Content-Length: 2"), 400, "BadRequestError"),
    "unknown route": (raw("GET", "/metrics"), 404, "NotFoundError"),
    "unknown model": (
        raw("POST", "/predictions/nothing", "Content-Type: image/png", "Content-Length: 1", body=b"x"),
        404, "ModelNotFoundException",
    ),
    "no prediction by GET": (raw("GET", PREDICT), 405, "MethodNotAllowedError"),
    "options": (raw("OPTIONS", PREDICT), 405, "MethodNotAllowedError"),
    "trace": (raw("TRACE", PREDICT), 405, "MethodNotAllowedError"),
    "no change of a model": (raw("DELETE", "/v2/models/digits"), 405, "MethodNotAllowedError"),
    "large body": (raw("POST", PREDICT, f"Content-Length: {MAX_BODY + 1}"), 413, "RequestTooLargeError"),
    "large body in chunks": (
        raw("POST", PREDICT, "Transfer-Encoding: chunked", body=b"%x\r\n" % (MAX_BODY + 1) + b"x" * 9),
        413, "RequestTooLargeError",
    ),
    "long path": (raw("GET", "/" + "a" * 9000), 414, "UriTooLongError"),
    "form": (
        raw("POST", PREDICT, f"Content-Type: {FORM_URLENCODED}", "Content-Length: 1", body=b"x"),
        415, "UnsupportedMediaTypeError",
    ),
    "long header": (raw("GET", "/v2", "X-Long: " + "a" * 9000), 431, "HeadersTooLargeError"),
    "unknown coding": (raw("POST", PREDICT, "Transfer-Encoding: gzip"), 501, "NotImplementedError"),
    "unknown version": (lambda _: b"GET / HTTP/7.0\r\nHost: x\r\n\r\n", 505, "HttpVersionError"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "status", "kind"), ERRORS.values(), ids=ERRORS)
def test_every_error_is_json(running: Running, make: Callable[[str], bytes], status: int, kind: str) -> None:
    answer_head, _, body = exchange(running.address, make(running.key)).partition(b"\r\n\r\n")
    error = json.loads(body)
    assert int(answer_head.split()[1]) == status
    assert (error["code"], error["type"]) == (status, kind)
    assert error["message"]
    assert b"application/json" in answer_head
    assert b"nginx/" not in answer_head
    if status == 405:
        assert b"\r\nAllow: " in answer_head


def test_errors_of_v2_are_what_its_clients_read(running: Running) -> None:
    for path in ("/v2/models/nothing", "/v2/models/digits/nothing", "/v2/models/nothing/ready"):
        error = running.request("GET", path).json()
        assert (error["code"], error["error"]) == (404, error["message"])


def test_plain_http_is_told_so(running: Running) -> None:
    response = requests.get(f"http://{running.address[0]}:{running.address[1]}/v2", timeout=TIMEOUT_S)
    assert (response.status_code, response.json()["type"]) == (400, "PlainHttpError")


def test_a_client_that_asks_too_often_is_told_to_wait_and_others_are_served(running: Running, seven: bytes) -> None:
    key = running.add_client("hasty")
    last = raw("GET", "/v2")(key)
    more = last.replace(b"Connection: close\r\n", b"") * 3 * (BURST + REQUESTS_PER_S)
    answer = exchange(running.address, more + last)
    assert answer.count(b"HTTP/1.1 200 OK") >= BURST
    refused = answer.count(b"HTTP/1.1 429 ")
    assert refused > 0
    assert answer.count(b"Retry-After: 1\r\n") == refused
    assert answer.count(b'"type":"TooManyRequestsError"') == refused
    assert running.predict(seven).status_code == 200


def test_slow_senders_are_cut_and_do_not_slow_others(running: Running, seven: bytes) -> None:
    expected = running.predict(seven).json()
    key = running.add_client("slow")
    with keep_comparing(lambda: running.predict(seven).json(), expected) as traffic:
        left = SlowSenders(running.address, key, 200).wait_until_cut(timeout_s=20)
    assert left == 0
    assert len(traffic.wrong) <= 0.001 * traffic.right, traffic.wrong[:3]
    assert traffic.right > 50
    of_slow = [line["status"] for line in running.log() if line["client"] == "slow"]
    assert (of_slow.count(429), of_slow.count(408)) == (100 - CONCURRENT, CONCURRENT)


def test_malformed_requests_leave_everything_as_it_was(running: Running, torchserve: Service, seven: bytes) -> None:
    expected, pids = running.predict(seven).json(), torchserve.worker_pids("digits")
    key = running.add_client("hostile")
    front_pids = {process.pid for process in nginx_processes(running)}

    def send(numbered: tuple[int, bytes]) -> bytes:
        number, request = numbered
        if number % 10 == 0:  # not even TLS
            with socket.create_connection(running.address, timeout=TIMEOUT_S) as plain:
                plain.sendall(request)
            return b""
        return exchange(running.address, request, timeout_s=0.1)

    hostile = list(enumerate(malformed_requests(1000, key)))
    answers = []
    with ThreadPoolExecutor(8) as pool:
        for start in range(0, len(hostile), 100):
            answers += list(pool.map(send, hostile[start : start + 100]))
            assert running.predict(seven).json() == expected
    statuses = {int(answer.split()[1]) for answer in answers if answer.startswith(b"HTTP/1")}
    assert statuses >= {400, 404, 413, 414, 431}
    assert statuses <= {400, 404, 405, 413, 414, 415, 429, 431, 501, 505}
    assert not any(b"modelName" in answer for answer in answers)
    assert torchserve.worker_pids("digits") == pids
    assert {process.pid for process in nginx_processes(running)} == front_pids


def nginx_processes(running: Running) -> list[psutil.Process]:
    master = running.front.process()
    assert master is not None
    return [master, *master.children()]


# What gets through


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/models"),
        ("POST", "/models?url=digits.mar"),
        ("DELETE", "/models/digits"),
        ("PUT", "/models/digits"),
        ("GET", "/management/models"),
        ("GET", "/torchserve/ping"),
        ("GET", "/metrics"),
        ("GET", "/token?type=inference"),
        ("GET", "/api-description"),
        ("OPTIONS", "/"),
        ("POST", "/workflows?url=x"),
        ("POST", "/wfpredict/x"),
        ("GET", "//models"),
        ("GET", "/predictions/../models"),
        ("GET", "/predictions/%2e%2e/models"),
        ("POST", "/predictions/digits/1.0/../../../models"),
        ("GET", "/v2/models/digits%2f..%2f..%2f..%2fmodels"),
        ("POST", "/predictions/digits%0a"),
        ("POST", "/explanations/digits%0aHost:y"),
        ("POST", "/v2/models/digits/versions/1.0%0a/infer"),
        ("GET", "/v2/models/digits%0a"),
        ("POST", "/v2/repository/models/digits/unload"),
        ("POST", "/invocations?model_name=digits"),
        ("GET", "/error"),
    ],
)
def test_management_is_out_of_reach(running: Running, torchserve: Service, method: str, path: str) -> None:
    answer = exchange(running.address, raw(method, path)(running.key))
    assert int(answer.split()[1]) in (404, 405), answer
    assert torchserve.server.client.list_models() == ["digits"]


def test_only_these_headers_reach_torchserve(before_upstream: Running, told: Upstream) -> None:
    told.requests.clear()
    headers = {
        "describe": "True", "explain": "True", "ts_request_sequence_id": "1", "X-Forwarded-For": "6.6.6.6",
        "Authorization": f"Bearer {before_upstream.key}", "Cookie": "a=b", "Connection": "X-Inference-Options",
        "Accept": "image/png", "X-Inference-Options": "top_k=1", "Content-Encoding": "identity",
    }  # fmt: skip
    assert before_upstream.predict(b"the body", "?top_k=2", **headers).content == b"its own say"
    path, received, body = told.requests[-1]
    assert (path, body) == ("/predictions/digits", b"the body")
    assert received.pop("x-request-id")
    assert received == {
        "host": "inference", "authorization": "Bearer token-of-torchserve", "content-type": "application/octet-stream",
        "content-encoding": "identity", "content-length": "8", "accept": "image/png", "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "https", "x-inference-options": "top_k=1; top_k=2",
    }  # fmt: skip


def test_headers_that_torchserve_acts_on_change_nothing(running: Running, seven: bytes) -> None:
    assert running.predict(seven, explain="True", describe="True").json() == running.predict(seven).json()


QUERIES = {
    "one": ("?top_k=3", "top_k=3"),
    "two": ("?score_threshold=0.4&top_k=3", "score_threshold=0.4; top_k=3"),
    "encoded": ("?class_filter=traffic+light%2Ccaf%C3%A9%20%25", "class_filter=traffic light,café %"),
    "ampersand in a value": ("?class_filter=a%26top_k%3D1", "class_filter=a&top_k=1"),
    "empty parts": ("?&&top_k=3&", "top_k=3"),
    "nothing": ("?", None),
}


@pytest.mark.parametrize(("query", "expected"), QUERIES.values(), ids=QUERIES)
def test_the_query_becomes_options(before_upstream: Running, told: Upstream, query: str, expected: str | None) -> None:
    assert before_upstream.predict(b"x", query).status_code == 200
    received = told.requests[-1][1].get("x-inference-options")
    assert (received and received.encode("latin-1").decode()) == expected


@pytest.mark.parametrize(
    "query",
    ["?top_k=3%3Bx=1", "?a=%0d%0aExplain:%20True", "?a=%00", "?a%0a=1", "?a=%zz", "?a=%ff", "?a%3Bb=1", "?=1"],
)
def test_a_query_that_would_be_more_than_options_is_refused(
    before_upstream: Running, told: Upstream, query: str
) -> None:
    told.requests.clear()
    request = raw("POST", PREDICT + query, "Content-Length: 0")(before_upstream.key)
    answer = exchange(before_upstream.address, request)
    assert (int(answer.split()[1]), b'"type":"QueryError"' in answer) == (400, True)
    assert told.requests == []


def test_options_of_the_query_count_and_unknown_ones_are_refused(running: Running, seven: bytes) -> None:
    assert len(running.predict(seven, "?top_k=3").json()["classes"]) == 3
    both = running.predict(seven, "?top_k=3", **{"X-Inference-Options": "top_k=2"})
    assert len(both.json()["classes"]) == 3
    unknown = running.predict(seven, "?topk=3")
    assert (unknown.status_code, "unknown option 'topk'" in unknown.json()["message"]) == (422, True)


def test_errors_of_a_model_are_its_own(running: Running) -> None:
    response = running.predict(GARBAGE)
    assert (response.status_code, response.json()["type"]) == (400, "ImageDecodeError")


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl_over_http2_with_a_body_of_unknown_length(running: Running, seven: bytes) -> None:
    command = ["curl", "-sS", "--http2", "--cacert", str(running.front.certificate), "-w", "%{http_version}"]
    command += ["-H", f"Authorization: Bearer {running.key}", "-T", "-", f"{running.front.url}/predictions/digits"]
    finished = subprocess.run(command, input=seven, capture_output=True, timeout=TIMEOUT_S)
    answer, version = json.loads(finished.stdout[:-1]), finished.stdout[-1:]
    assert (best_label(answer), version) == ("7", b"2")


# Open Inference and KServe V1


def test_tritonclient_asks_and_predicts_through_the_front(running: Running, seven: bytes) -> None:
    headers = {"Authorization": f"Bearer {running.key}"}
    with triton.InferenceServerClient(
        running.front.url.removeprefix("https://"), ssl=True,
        ssl_context_factory=lambda: ssl.create_default_context(cafile=running.front.certificate),
    ) as client:  # fmt: skip
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("digits", headers=headers)
        assert client.is_model_ready("digits", "1.0", headers=headers)
        assert not client.is_model_ready("nothing", headers=headers)
        assert client.get_server_metadata(headers=headers)["extensions"] == ["binary_tensor_data"]
        metadata = client.get_model_metadata("digits", headers=headers)
        tensor = triton.InferInput(metadata["inputs"][0]["name"], [1], metadata["inputs"][0]["datatype"])
        tensor.set_data_from_numpy(np.array([seven], dtype=np.object_))
        for version in ("", "1.0"):
            answer = client.infer("digits", [tensor], version, headers=headers, parameters={"top_k": 2})
            assert answer.as_numpy("class_ids").tolist() == [[7, 9]]
            given = [(output["name"], output["datatype"]) for output in answer.get_response()["outputs"]]
            assert given == [(output["name"], output["datatype"]) for output in metadata["outputs"]]
        assert (metadata["name"], metadata["versions"]) == ("digits", ["1.0"])
        with pytest.raises(triton.InferenceServerException, match="top_k"):
            client.infer("digits", [tensor], headers=headers, parameters={"top_k": "many"})


def test_kserve_v1_asks_and_predicts_through_the_front(running: Running, seven: bytes) -> None:
    assert running.request("GET", "/v1/models").json() == {"models": ["digits"]}
    assert running.request("GET", "/v1/models/digits").json() == {"name": "digits", "ready": True}
    assert running.request("GET", "/v1/models/nothing").status_code == 404
    answer = running.request("POST", "/v1/models/digits:predict", JSON, data=to_v1(seven))
    assert best_label(answer.json()["predictions"][0]) == "7"


def test_probes_need_no_key_and_say_nothing_else(running: Running) -> None:
    paths = ("/ping", "/v2/health/live", "/v2/health/ready")
    answers = [running.request("GET", path, {"X-Api-Key": ""}) for path in paths]
    assert [answer.json() for answer in answers] == [{"status": "Healthy"}, {"live": True}, {"ready": True}]
    assert running.request("GET", "/v1/models", {"X-Api-Key": ""}).status_code == 401


# Faults behind the front


def test_killed_workers_are_no_failure_of_a_client_and_readiness_tells_them(
    running: Running, torchserve: Service, seven: bytes
) -> None:
    """Requests of 24 images, so that workers are busy when they are killed."""
    body = to_v1(*[seven] * 24)

    def ask() -> Any:
        return running.request("POST", "/v1/models/digits:predict", JSON, data=body).json()

    expected, since = ask(), len(running.log())
    seen_not_ready = False
    with keep_comparing(ask, expected) as traffic:
        for kill in range(6):
            os.kill(torchserve.worker_pids("digits")[kill % 2], signal.SIGKILL)
            time.sleep(0.5)  # TorchServe notices at once, nearly
            deadline = time.monotonic() + TIMEOUT_S
            while not all(model.ready for model in torchserve.server.status()):
                assert time.monotonic() < deadline, "the worker is not replaced"
                seen_not_ready |= running.request("GET", "/v2/health/ready").status_code == 503
                time.sleep(0.2)
            retried = [line["tries"] for line in running.log()[since:] if ":" in line["tries"]]
            if kill >= 2 and retried and seen_not_ready:
                break
        time.sleep(REMEMBERED_S)
        assert running.request("GET", "/v2/health/ready").status_code == 200
    assert traffic.wrong == []
    assert traffic.right > 20
    assert retried, "no request was in a worker that was killed"
    assert {tries.split(" : ")[1] for tries in retried} == {"200"}
    assert seen_not_ready


@pytest.mark.parametrize(("status", "tries"), [(500, 2), (507, 2), (503, 1), (413, 1), (400, 1)])
def test_what_fails_is_asked_twice_at_most(before_upstream: Running, told: Upstream, status: int, tries: int) -> None:
    told.requests.clear()
    told.status = status
    try:
        response = before_upstream.predict(b"x")
    finally:
        told.status = 200
    assert (response.status_code, response.content, len(told.requests)) == (status, b"its own say", tries)
    assert {body for _, _, body in told.requests} == {b"x"}


def test_an_answer_that_does_not_come_is_a_504_after_two_tries(before_upstream: Running, told: Upstream) -> None:
    told.requests.clear()
    told.delay_s = 3
    try:
        response = before_upstream.predict(b"x")
    finally:
        told.delay_s = 0
    assert (response.status_code, response.json()["type"], len(told.requests)) == (504, "UpstreamTimeoutError", 2)


def test_a_token_that_is_missing_or_has_expired_is_the_fronts_fault(before_upstream: Running, told: Upstream) -> None:
    folder = before_upstream.config.parent
    try:
        write_tokens(folder, year=2020)
        expired = before_upstream.predict(b"x")
        (folder / "key_file.json").unlink()
        missing = before_upstream.predict(b"x")
    finally:
        write_tokens(folder)
    assert [(answer.status_code, answer.json()["type"]) for answer in (expired, missing)] == [
        (503, "TokenExpiredError"), (503, "UnavailableError"),
    ]  # fmt: skip
    assert missing.headers["Retry-After"] == "1"
    assert before_upstream.predict(b"x").status_code == 200


def test_without_a_management_api_nothing_is_ready(before_upstream: Running) -> None:
    ready = before_upstream.request("GET", "/v2/health/ready")
    assert (ready.status_code, ready.json()) == (503, {"ready": False})
    model = before_upstream.request("GET", "/v2/models/digits/ready")
    assert (model.status_code, model.json()["type"]) == (503, "UnavailableError")


def test_a_server_that_is_gone_is_a_502(nginx: None, tmp_path: Path) -> None:
    inference, management = find_free_ports(2)
    config = tmp_path / "config.properties"
    addresses = f"inference_address=http://127.0.0.1:{inference}\nmanagement_address=http://127.0.0.1:{management}\n"
    config.write_text(addresses + "disable_token_authorization=true\n")
    with run_front(tmp_path, config) as running:
        response = running.predict(b"x")
        assert (response.status_code, response.json()["type"]) == (502, "UpstreamError")
        assert running.line_of(response)["tries"] == "502 : 502"
        assert running.request("GET", "/v2/health/live").json() == {"live": False}


def test_a_renewed_token_needs_no_reload(running: Running, torchserve: Service, seven: bytes) -> None:
    expected = running.predict(seven).json()
    with keep_comparing(lambda: running.predict(seven).json(), expected) as traffic:
        for _ in range(8):
            torchserve.server.client.renew_token("inference")
            time.sleep(0.1)
    assert traffic.right > len(traffic.wrong)
    # In the instant in which TorchServe has the new one and its file the old one.
    assert {answer["type"] for answer in traffic.wrong} <= {"InvalidKeyException"}
    assert running.predict(seven).json() == expected
    torchserve.server.client.renew_token("management")
    time.sleep(REMEMBERED_S)
    assert running.request("GET", "/v2/health/ready").status_code == 200


@pytest.mark.parametrize("kind", ["inference", "management"])
def test_a_token_that_has_ended_is_renewed_by_the_requests_that_find_it_so(
    kind: str, running: Running, torchserve: Service, seven: bytes
) -> None:
    expected = running.predict(seven).json()
    time.sleep(REMEMBERED_S)
    key_file = torchserve.folder / "key_file.json"
    before = json.loads(key_file.read_text())
    before[kind]["expiration time"] = "2020-01-01T00:00:00.123456789Z"
    key_file.write_text(json.dumps(before))
    with ThreadPoolExecutor(CONCURRENT) as pool:
        if kind == "inference":
            answers = [answer.json() for answer in pool.map(lambda _: running.predict(seven), range(CONCURRENT))]
            assert answers == [expected] * CONCURRENT
        else:
            statuses = pool.map(lambda _: running.request("GET", "/v2/health/ready").status_code, range(CONCURRENT))
            assert set(statuses) == {200}
    after = json.loads(key_file.read_text())
    assert after[kind]["key"] != before[kind]["key"]
    assert after[kind]["expiration time"] > "2020-01-02"


def test_a_probe_with_a_body_is_a_probe(running: Running) -> None:
    """What TorchServe is told of a body that it does not get, it waits for."""
    for path in ("/ping", "/v2/health/live", "/v2/health/ready"):
        time.sleep(REMEMBERED_S)
        assert running.request("GET", path, data=b"a body").status_code == 200


def test_a_reload_under_traffic_fails_nothing(running: Running, seven: bytes) -> None:
    expected = running.predict(seven).json()
    with keep_comparing(lambda: running.predict(seven).json(), expected) as traffic:
        for _ in range(4):
            running.front.reload()
            time.sleep(0.3)
    assert traffic.wrong == []
    assert traffic.right > 20


# The log and the command


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


def test_a_start_that_fails_makes_no_key_that_nobody_saw(before_upstream: Running, tmp_path: Path) -> None:
    front = Front(tmp_path, before_upstream.settings, before_upstream.config)  # its port is taken
    with pytest.raises(NginxError, match="Address already in use"):
        front.start()
    assert front.clients.names() == []


@pytest.mark.parametrize("listen", ["0.0.0.0:8443; autoindex on", "8443", "127.0.0.1", "[::1]"])
def test_where_it_listens_is_an_address_with_a_port(tmp_path: Path, listen: str) -> None:
    settings = tmp_path / "front.yaml"
    settings.write_text(yaml.safe_dump({**yaml.safe_load(SETTINGS.read_text()), "listen": listen}))
    with pytest.raises(ConfigError, match="listen"):
        Front(tmp_path, settings, tmp_path / "config.properties")


def test_settings_are_strict(tmp_path: Path) -> None:
    settings = tmp_path / "front.yaml"
    settings.write_text(SETTINGS.read_text() + "burts: 3\n")
    with pytest.raises(ConfigError, match="unknown key 'burts'"):
        Front(tmp_path, settings, tmp_path / "config.properties")


def test_a_missing_nginx_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(nginx_module, "SYSTEM_PATHS", ())
    monkeypatch.setattr(nginx_module, "FETCHED", tmp_path)
    with pytest.raises(NginxError, match="apt install nginx libnginx-mod-http-js"):
        find_nginx()
