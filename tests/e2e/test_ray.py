"""What Ray Serve does beyond the contract: a second try where a replica dies, a full queue, keys, gated upgrades."""

import json
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml

from mar_tools.building.packing import build_archive
from mar_tools.command_line import ROOT
from mar_tools.exporting.export import export_model
from mar_tools.front.client_keys import ClientKeys
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import read_recipe
from mar_tools.verification.gate import verify_export
from mar_tools.waiting import wait_until

from .conftest import EXAMPLES, build_digits, run_script, write_configuration
from .on_ray import RayService, serve_on_ray, set_model
from .test_requests import GARBAGE, OCTETS, best_label

pytestmark = pytest.mark.ray

REQUESTS, CLIENTS, KILLS = 5000, 8, 4
BACK_S = 120.0
QUEUE = 8


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> ClientKeys:
    return ClientKeys(tmp_path_factory.mktemp("keys") / "clients.map")


@pytest.fixture(scope="module")
def ray_server(archives: Path, keys: ClientKeys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayService]:
    """The digits classifier in two replicas, the detector in one or two, with a short queue, for clients with keys."""
    pytest.importorskip("ray.serve", reason="needs requirements/ray.txt", exc_type=ImportError)
    key = keys.add("first")
    config = write_configuration(tmp_path_factory.mktemp("ray_server"), job_queue_size=str(QUEUE))
    set_model(config, "digits", minWorkers=2, maxWorkers=2, batchSize=4, maxBatchDelay=2)
    set_model(config, "digits_detection", minWorkers=1, maxWorkers=2, batchSize=1, maxBatchDelay=1)
    with serve_on_ray(config, sorted(archives.glob("*.mar")), "--keys", keys._path, key=key) as service:
        yield service


@contextmanager
def traffic(server: RayService, body: bytes, seen: list[tuple[int, str]]) -> Iterator[None]:
    """Ask all the time, and note the status and the version of each answer."""
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            response = server.post("digits", body, OCTETS)
            seen.append((response.status_code, response.headers.get("X-Model-Version", "")))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_no_request_shows_that_replicas_are_killed(ray_server: RayService, seven: bytes) -> None:
    asked = threading.Semaphore(0)

    def ask(number: int) -> tuple[int, str]:
        response = ray_server.post("digits", seven, OCTETS)
        asked.release()
        answer = response.json()
        return response.status_code, best_label(answer) if "classes" in answer else str(answer)

    def kill_some() -> int:
        killed = 0
        for _ in range(KILLS):
            for _ in range(REQUESTS // (KILLS + 2)):
                asked.acquire()
            assert wait_until(lambda: len(ray_server.replicas("digits")) == 2, BACK_S)
            ray_server.replicas("digits")[0].kill()
            killed += 1
        return killed

    with ThreadPoolExecutor(CLIENTS + 1) as pool:
        killer = pool.submit(kill_some)
        answers = list(pool.map(ask, range(REQUESTS)))
    assert killer.result() == KILLS
    assert [answer for answer in answers if answer != (200, "7")] == []
    assert wait_until(lambda: len(ray_server.replicas("digits")) == 2, BACK_S)


def test_an_ingress_that_is_killed_comes_back_and_says_nothing_but_our_json(
    ray_server: RayService, seven: bytes
) -> None:
    ended, answers, cut = threading.Event(), [], 0

    def ask() -> int:
        lost = 0
        while not ended.is_set():
            try:
                answers.append(ray_server.post("digits", seven, OCTETS))
            except requests.ConnectionError:  # what it had under way, and while nobody listens
                lost += 1
        return lost

    def answered_again() -> bool:
        return bool(answers[before:]) and answers[-1].status_code == 200

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(ask) for _ in range(CLIENTS)]
        try:
            assert wait_until(lambda: len(answers) > 50, BACK_S)
            (ingress,) = ray_server.ingresses()
            ingress.kill()
            ingress.wait(BACK_S)
            before = len(answers)
            assert wait_until(answered_again, BACK_S)
        finally:
            ended.set()
        cut = sum(client.result() for client in clients)
    assert cut
    assert {(answer.status_code, answer.headers["Content-Type"]) for answer in answers} <= {
        (200, "application/json"),
        (503, "application/json"),  # it has started and not found the replicas yet
    }


def test_replicas_come_when_requests_wait(ray_server: RayService, scene: bytes) -> None:
    ended = threading.Event()

    def ask() -> set[int]:
        statuses = set()
        while not ended.is_set():
            statuses.add(ray_server.post("digits_detection", scene, OCTETS).status_code)
        return statuses

    assert len(ray_server.replicas("digits_detection")) == 1
    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(ask) for _ in range(4)]
        came = wait_until(lambda: len(ray_server.replicas("digits_detection")) == 2, BACK_S)
        ended.set()
    assert came
    assert {status for client in clients for status in client.result()} == {200}


def test_what_does_not_fit_the_queue_is_told_to_come_again(ray_server: RayService, seven: bytes) -> None:
    with ThreadPoolExecutor(80) as pool:
        answers = list(pool.map(lambda _: ray_server.post("digits", seven, OCTETS), range(160)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert refused
    assert len(refused) < len(answers)
    for answer in refused:
        assert (answer.status_code, answer.json()["type"]) == (503, "ServerBusyError")
        assert int(answer.headers["Retry-After"]) >= 1
    assert ray_server.post("digits", seven, OCTETS).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"X-Api-Key": ""}])
@pytest.mark.parametrize("path", ["/predictions/digits", "/predictions/flowers", "/models", "/nothing"])
def test_without_a_key_nothing_is_answered(
    ray_server: RayService, seven: bytes, headers: dict[str, str], path: str
) -> None:
    response = requests.post(ray_server.url + path, data=seven, headers={**OCTETS, **headers}, timeout=30)
    assert (response.status_code, response.json()["type"]) == (401, "UnauthorizedError")
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/ping", "/v2/health/live", "/v2/health/ready"])
def test_a_probe_needs_no_key(ray_server: RayService, path: str) -> None:
    assert requests.get(ray_server.url + path, timeout=30).status_code == 200


def test_a_key_counts_from_when_it_is_added_until_it_is_removed(
    ray_server: RayService, keys: ClientKeys, seven: bytes
) -> None:
    key = keys.add("second")
    ask = partial(requests.post, f"{ray_server.url}/predictions/digits", seven, timeout=30)
    assert ask(headers={**OCTETS, "X-Api-Key": key}).status_code == 200
    keys.remove("second")
    assert ask(headers={**OCTETS, "X-Api-Key": key}).status_code == 401


def test_a_fault_of_the_server_itself_is_told_in_json(ray_server: RayService, keys: ClientKeys, seven: bytes) -> None:
    whole = keys._path.read_text()
    keys._path.write_text("torn")
    try:
        response = ray_server.post("digits", seven, OCTETS)
    finally:
        keys._path.write_text(whole)
    assert (response.status_code, response.json()["type"]) == (500, "InternalServerError")
    assert ray_server.post("digits", seven, OCTETS).status_code == 200


def test_a_body_that_stalls_is_given_up(ray_server: RayService) -> None:
    host, port = ray_server.url.removeprefix("http://").split(":")
    head = f"POST /predictions/digits HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ray_server.key}\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(f"{head}Content-Type: image/png\r\nContent-Length: 1000\r\n\r\nabc".encode())
        assert connection.recv(64).startswith(b"HTTP/1.1 408 ")


def endless(size: int) -> Iterator[bytes]:
    for _ in range(size >> 20):
        yield bytes(1 << 20)


@pytest.mark.parametrize("make", [lambda: bytes(27_000_000), lambda: endless(40 << 20)], ids=["length", "chunked"])
def test_a_body_above_the_limit_is_413(ray_server: RayService, make: Any) -> None:
    response = ray_server.post("digits", make(), OCTETS)
    assert (response.status_code, response.json()["type"]) == (413, "RequestTooLargeError")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("POST", "/predictions/flowers", 404), ("POST", "/predictions/digits/9.9", 404),
     ("DELETE", "/predictions/digits", 405), ("POST", "/v2", 405)],
)  # fmt: skip
def test_what_is_not_there_is_told_in_json(ray_server: RayService, method: str, path: str, status: int) -> None:
    response = ray_server.request(method, path)
    assert (response.status_code, response.json()["code"]) == (status, status)


def test_metadata_is_that_of_the_front(ray_server: RayService) -> None:
    front = (ROOT / "deploy" / "nginx" / "front.js").read_text()
    found = ray_server.request("GET", "/v2/models/digits").json()
    assert (found["name"], found["versions"], found["platform"]) == ("digits", ["1.0"], "ray_serve_openvino")
    for tensor in (*found["inputs"], *found["outputs"]):
        shape = ", ".join(map(str, tensor["shape"]))
        assert f"{{name: '{tensor['name']}', datatype: '{tensor['datatype']}', shape: [{shape}]}}" in front
    card = ray_server.request("GET", "/models/digits").json()[0]["customizedMetadata"]
    assert (card["name"], card["task"], card["device"]) == ("digits", "classification", "cpu")


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FOLLOWED = {
    "its own": ({"X-Request-Id": "order-17/3", "traceparent": TRACE}, "order-17/3", TRACE),
    "an id with a space": ({"X-Request-Id": "a b", "traceparent": TRACE + "0"}, None, None),
    "one that is too long": ({"X-Request-Id": "a" * 129, "traceparent": "00-" + "0" * 32 + TRACE[35:]}, None, None),
    "none": ({}, None, None),
}


@pytest.mark.parametrize(("sent", "expected_id", "trace"), FOLLOWED.values(), ids=FOLLOWED)
def test_each_answer_has_the_id_of_its_request(
    ray_server: RayService, seven: bytes, sent: dict[str, str], expected_id: str | None, trace: str | None
) -> None:
    for body in (seven, GARBAGE):
        answered = ray_server.post("digits", body, {**OCTETS, **sent}).headers
        assert answered["X-Request-Id"] == expected_id or (expected_id is None and len(answered["X-Request-Id"]) == 32)
        assert answered.get("traceparent") == trace


def test_clients_that_leave_hurt_nobody(ray_server: RayService, seven: bytes) -> None:
    before = ray_server.worker_pids("digits")

    def leave(_: int) -> None:
        url = f"{ray_server.url}/predictions/digits"
        headers = {**OCTETS, "Authorization": f"Bearer {ray_server.key}"}
        with pytest.raises(requests.Timeout):
            requests.post(url, seven, headers=headers, timeout=0.0005)

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(leave, range(100)))
        answers = list(pool.map(lambda _: ray_server.post("digits", seven, OCTETS).status_code, range(50)))
    assert set(answers) == {200}
    assert ray_server.worker_pids("digits") == before


def test_what_the_cluster_hears_is_on_loopback(ray_server: RayService) -> None:
    """But for a port that each replica opens on all addresses, whatever Ray is told; it asks for a token."""
    family = [psutil.Process(ray_server.process.pid), *ray_server._family()]
    listening = [
        (process.name(), connection.laddr.ip)
        for process in family
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    elsewhere = [name for name, ip in listening if ip not in ("127.0.0.1", "::ffff:127.0.0.1")]
    assert [name for name in elsewhere if not name.startswith("ray::ServeRepli")] == []


def test_a_configuration_for_serve_deploy_is_written(ray_server: RayService, tmp_path: Path) -> None:
    from ray.serve.schema import ServeDeploySchema

    file = tmp_path / "serve.yaml"
    written = run_script("serve_on_ray.py", "--config", ray_server.config, "--write-config", file)
    assert written.returncode == 0, written.stderr
    document = ServeDeploySchema.model_validate(yaml.safe_load(file.read_text()))
    assert [application.name for application in document.applications] == [
        "digits-1.0",
        "digits_detection-1.0",
        "vision",
    ]
    host, port = document.applications[-1].args["listen"]
    assert (str(document.proxy_location.value), f"http://{host}:{port}") == ("Disabled", ray_server.url)


# Upgrades: the last, for they change what is served


def build_with_wrong_golden(folder: Path, version: str) -> Path:
    """The digits classifier, with a golden prediction that it does not give."""
    shutil.copytree(EXAMPLES / "digits_classification", folder)
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | {"version": version}))
    export = export_model(
        read_recipe(recipe), load_checkpoint(read_recipe(recipe)), "eager", "fp32", folder / "exports"
    )
    verify_export(export)
    golden = json.loads((export / "golden.json").read_text())
    golden["found"][0]["class_id"] = (golden["found"][0]["class_id"] + 1) % 10
    (export / "golden.json").write_text(json.dumps(golden))
    return build_archive(export, ROOT / "handlers", folder)


def deploy(server: RayService, archive: Path, version: str) -> Any:
    """Put a version into the store, make it the default, and deploy that to the running cluster."""
    name = f"digits-{version}.mar"
    shutil.copy(archive, server.model_store / name)
    set_model(server.config, "digits", "1.0", defaultVersion=False)
    set_model(
        server.config, "digits", version,
        marName=name, defaultVersion=True, minWorkers=1, batchSize=4, maxBatchDelay=2,
    )  # fmt: skip
    (address,) = (line.split()[3].rstrip(";") for line in server.said.splitlines() if line.startswith("the cluster is"))
    keys = next(
        Path(argument) for argument in psutil.Process(server.process.pid).cmdline() if "clients.map" in argument
    )
    return run_script("serve_on_ray.py", "--config", server.config, "--keys", keys, "--address", address)


def test_a_version_with_a_wrong_golden_prediction_never_becomes_the_default(
    ray_server: RayService, seven: bytes, tmp_path: Path
) -> None:
    seen: list[tuple[int, str]] = []
    with traffic(ray_server, seven, seen):
        deployed = deploy(ray_server, build_with_wrong_golden(tmp_path / "wrong", "2.0"), "2.0")
    assert (deployed.returncode, "does not give its golden prediction" in deployed.stderr) == (1, True), deployed.stderr
    assert set(seen) == {(200, "1.0")}
    assert ray_server.request("POST", "/predictions/digits/2.0", data=GARBAGE, headers=OCTETS).status_code == 503
    set_model(ray_server.config, "digits", "2.0", defaultVersion=False)
    (ray_server.model_store / "digits-2.0.mar").unlink()


def test_a_version_becomes_the_default_under_load_and_nothing_fails(
    ray_server: RayService, seven: bytes, tmp_path: Path
) -> None:
    seen: list[tuple[int, str]] = []
    before = ray_server.worker_pids("digits")
    with traffic(ray_server, seven, seen):
        deployed = deploy(ray_server, build_digits(tmp_path / "new", version="3.0"), "3.0")
        assert deployed.returncode == 0, deployed.stderr
        assert wait_until(lambda: seen[-1][1] == "3.0", 30)
    assert {status for status, _ in seen} == {200}
    assert [version for _, version in seen] == sorted(version for _, version in seen)
    assert set(before) <= set(ray_server.worker_pids("digits")), "the version that was there kept its replicas"


def test_what_is_under_way_when_the_command_ends_is_answered(
    archives: Path, seven: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = write_configuration(tmp_path_factory.mktemp("ending"))
    set_model(config, "digits", minWorkers=1, batchSize=8, maxBatchDelay=3000)  # so long does the last one wait
    with serve_on_ray(config, [archives / "digits.mar"]) as service, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(service.post, "digits", seven, OCTETS)
        assert wait_until(lambda: is_under_way(service), BACK_S)
        service.process.terminate()
        answer = waiting.result()
        assert (answer.status_code, best_label(answer.json())) == (200, "7")
        assert service.process.wait(BACK_S) == 128 + signal.SIGTERM
        assert "answering what is under way" in service.said


def is_under_way(service: RayService) -> bool:
    """Return whether a client is connected to the ingress."""
    (ingress,) = service.ingresses()
    port = int(service.url.rpartition(":")[2])
    return any(each.laddr.port == port and each.status == "ESTABLISHED" for each in ingress.net_connections("tcp"))
