import json
import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from http_fakes import Answer, Request, serve_http, serve_requests

from mar_tools.serving import torchserve_api
from mar_tools.serving.address import ServerAddress, read_address
from mar_tools.serving.torchserve_api import ServerError, TorchServeClient
from vision_client.connection import Connection

REGISTERED = "Model version 1.0 is already registered for model flowers"


def test_a_server_that_hangs_is_asked_once_and_called_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchserve_api, "PREDICT_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:  # takes connections and never answers
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ServerError, match=r"did not answer within 0\.3 s"):
            TorchServeClient(ServerAddress(url, url, None)).predict("digits", b"image")
        listener.settimeout(0.2)
        listener.accept()
        with pytest.raises(TimeoutError):
            listener.accept()


def test_a_token_that_has_expired_is_renewed_once_for_all_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each renewal would make the tokens of the others invalid."""
    key_file, renewals = tmp_path / "key_file.json", []
    all_refused = Barrier(4, timeout=10)

    def answer(body: bytes, headers: Mapping[str, str]) -> Answer:
        if headers["Authorization"] == "Bearer new-1":
            return Answer(200)
        all_refused.wait()
        return Answer(400, b'{"code": 400, "type": "InvalidKeyException", "message": "Token Authorization failed."}')

    def renew(kind: str) -> str:
        renewals.append(kind)
        return write_token(f"new-{len(renewals)}")

    def write_token(token: str) -> str:
        key_file.write_text(json.dumps({"inference": {"key": token}}))
        return token

    write_token("old")
    with serve_http(answer) as url, ThreadPoolExecutor(4) as pool:
        base = url.partition("/predictions")[0]
        client = TorchServeClient(ServerAddress(base, base, key_file))
        monkeypatch.setattr(client, "renew_token", renew)
        responses = list(pool.map(lambda _: client.predict("digits", b"image"), range(4)))
    assert [response.status_code for response in responses] == [200] * 4
    assert renewals == ["inference"]


def test_a_worker_that_cannot_load_leaves_a_model_with_those_it_had() -> None:
    """Scaled from one to two, of which the second ends while it loads: TorchServe starts it again, with another pid."""
    limits: list[str] = []

    def answer(request: Request) -> Answer:
        if request.method == "PUT":
            limits.append(request.path.partition("?")[2].removesuffix("&synchronous=false"))
            return Answer(202)
        pids.append(pids[-1] + 1)
        workers = [{"id": "9000", "pid": 1, "status": "READY"}, {"id": "9001", "pid": pids[-1], "status": "UNLOADING"}]
        return Answer(200, json.dumps([{"minWorkers": 1, "maxWorkers": 4, "workers": workers}]).encode())

    pids = [100]
    with serve_requests(answer) as url, pytest.raises(ServerError, match="end while they load"):
        TorchServeClient(ServerAddress(url, url, None)).scale("digits", None, 2)
    assert limits == ["min_worker=2&max_worker=2", "min_worker=1&max_worker=4"]


def test_an_archive_that_is_served_already_is_refused_with_what_to_do() -> None:
    """TorchServe's refusal names a version, and the address that was asked names no model."""
    refusal = {"code": 409, "type": "ConflictStatusException", "message": REGISTERED}

    def answer(request: Request) -> Answer:
        if request.method == "POST":
            return Answer(409, json.dumps(refusal).encode())
        return Answer(200, b'{"models": []}')

    with serve_requests(answer) as url, pytest.raises(ServerError, match=r"already registered.*unregister` it first"):
        TorchServeClient(ServerAddress(url, url, None)).register("flowers.mar", 1, 8, 2)


def test_a_client_connects_to_what_it_asks_and_keeps_that(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def connect(url: str, *arguments: object, **settings: object) -> Connection:
        made.append(url)
        return Connection(url, *arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(torchserve_api, "Connection", connect)
    with serve_requests(lambda request: Answer(200, b'{"models": []}')) as url:
        client = TorchServeClient(ServerAddress("http://127.0.0.1:9", url, None), time.monotonic() + 60)
        assert made == []
        assert client.list_models() == client.with_deadline(time.monotonic() + 9).list_models() == []
    assert made == [url]


def test_a_server_that_speaks_no_tls_is_not_called_away() -> None:
    with serve_requests(lambda request: Answer(200)) as url:
        address = url.replace("http:", "https:")
        with pytest.raises(ServerError, match=f"cannot connect to {address}: .*SSL.*config.properties right") as caught:
            TorchServeClient(ServerAddress(address, address, None), time.monotonic() + 60).list_models()
    assert "no server answers" not in str(caught.value)


def test_metrics_that_the_server_does_not_show_are_none(tmp_path: Path) -> None:
    config = tmp_path / "config.properties"
    config.write_text("enable_metrics_api=false\ndisable_token_authorization=true\n")
    assert TorchServeClient(read_address(config)).read_metrics() == ""
