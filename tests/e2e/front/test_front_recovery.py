"""Faults behind the front: killed workers, failed answers, tokens that end, reloads."""

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import Service
from e2e.test_requests import to_v1
from e2e.traffic import keep_comparing
from mar_tools.serving.ports import find_free_ports

from .conftest import CONCURRENT, JSON, REMEMBERED_S, Running, run_front, write_tokens
from .faults import Upstream

WORKER_BACK_S = 120.0  # on a busy machine; alone it is five seconds


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
            deadline = time.monotonic() + WORKER_BACK_S
            while not all(model.ready for model in torchserve.server.status()):
                assert time.monotonic() < deadline, "the worker is not replaced"
                seen_not_ready |= running.request("GET", "/v2/health/ready").status_code == 503
                time.sleep(0.2)
            retried = [line["tries"] for line in running.log()[since:] if ":" in line["tries"]]
            if kill and retried and seen_not_ready:
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
    time.sleep(REMEMBERED_S)  # so that the last asks TorchServe; the others always do
    for path in ("/ping", "/v2/health/live", "/v2/health/ready"):
        assert running.request("GET", path, data=b"a body").status_code == 200


def test_a_reload_under_traffic_fails_nothing(running: Running, seven: bytes) -> None:
    expected = running.predict(seven).json()
    with keep_comparing(lambda: running.predict(seven).json(), expected) as traffic:
        for _ in range(4):
            running.front.reload()
            time.sleep(0.3)
    assert traffic.wrong == []
    assert traffic.right > 20
