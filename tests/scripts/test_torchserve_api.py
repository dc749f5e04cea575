import socket

import pytest

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
