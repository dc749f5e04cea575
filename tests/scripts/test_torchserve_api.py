import json
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from http_fakes import Answer, serve_http

from mar_tools import torchserve_api
from mar_tools.torchserve_api import ServerAddress, ServerError, TorchServeClient


def test_a_server_that_hangs_is_asked_twice_and_called_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchserve_api, "PREDICT_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:  # takes connections and never answers
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ServerError, match=r"did not answer within 0\.3 s"):
            TorchServeClient(ServerAddress(url, url, None)).predict("digits", b"image")
        listener.settimeout(0.2)
        for _ in range(2):
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
        return Answer(400, b'{"type": "InvalidKeyException"}')

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
